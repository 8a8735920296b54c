"""What is left out is what cannot matter any more, and leaving it out changes nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import compaction as closing_rule
from mgnp_jax.methods.node_pruning import loop
from mgnp_jax.passes import compaction
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.segment_plan import full_cost, plan
from tests import tiny


def closing(config: mg.ModelConfig, seed: int = 0) -> mg.Masks:
    """Log-alpha with most nodes closed for good, and whole blocks among them."""
    rng = np.random.default_rng(seed)
    log_alpha = {
        name: jnp.asarray(np.where(rng.uniform(size=leaf.shape) < 0.7, -12.0, 6.0), jnp.float32)
        for name, leaf in mg.full_masks(config).items()
    }
    log_alpha["attention_blocks"] = jnp.array([6.0, -12.0, 6.0])
    log_alpha["mlp_blocks"] = jnp.array([6.0, 6.0, -12.0])
    log_alpha["attention_heads"] = log_alpha["attention_heads"].at[0, 1].set(6.0)
    log_alpha["attention_neurons"] = log_alpha["attention_neurons"].at[0, 1, 0].set(6.0)
    log_alpha["mlp_hidden"] = log_alpha["mlp_hidden"].at[0, :3].set(6.0)
    log_alpha["mlp_output"] = log_alpha["mlp_output"].at[0].set(6.0)
    return log_alpha


def compacted(model: mg.Model, log_alpha: mg.Masks) -> compaction.Compaction:
    left = closing_rule.still_open(log_alpha, 0.5, 0.02)
    chosen = compaction.plan_for(model.config, left, 4)
    assert chosen.cost < 0.8 * full_cost(model.config)
    return compaction.compacted(model.config, model.params, chosen, left)


@pytest.mark.slow
def test_the_smaller_model_gives_the_logits_and_gradients_of_the_whole(
    any_block: mg.Model,
) -> None:
    c, p = any_block.config, any_block.params
    less = compacted(any_block, closing(c))
    assert sum(len(s.heads[0]) for s in less.segments) < c.heads * len(less.segments)
    batch = tiny.batch(c, rows=5, shared=2)
    streams = plain_runs(c, p, batch)
    narrow = compaction.narrow_values(c, less.segments, streams.corrupted)
    narrow = dataclasses.replace(streams, corrupted=narrow)  # type: ignore[type-var]
    rng = np.random.default_rng(1)
    soft = {
        name: jnp.asarray(rng.uniform(size=leaf.shape), jnp.float32)
        for name, leaf in mg.full_masks(c).items()
    }

    def prompts(masks: mg.Masks) -> mg.Masks:
        own = jnp.linspace(0.5, 1.0, 5)
        return {n: m[:, None] * own.reshape(1, 5, *[1] * (m.ndim - 1)) for n, m in masks.items()}

    def dense(soft: mg.Masks) -> tuple[jax.Array, jax.Array]:
        masks = {n: m * less.open[n].astype(jnp.float32) for n, m in soft.items()}
        out = masked_logits(c, p, prompts(masks), streams)
        return jnp.square(out).sum(), out

    def small(soft: mg.Masks) -> tuple[jax.Array, jax.Array]:
        parts = [prompts(part) for part in less.masks(soft)]
        out = masked_logits(c, p, parts, narrow, segments=less.segments)
        return jnp.square(out).sum(), out

    (_, expected), wanted = jax.jit(jax.value_and_grad(dense, has_aux=True))(soft)
    (_, got), gradient = jax.jit(jax.value_and_grad(small, has_aux=True))(soft)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    for name in wanted:
        left = np.asarray(less.open[name])
        np.testing.assert_allclose(
            np.asarray(gradient[name])[left],
            np.asarray(wanted[name])[left],
            rtol=1e-4,
            atol=2e-4,
            err_msg=name,
        )


def test_only_nodes_that_are_hardly_ever_open_are_left_out() -> None:
    log_alpha = mg.full_masks(tiny.GPT2, 6.0)
    log_alpha["mlp_hidden"] = log_alpha["mlp_hidden"].at[1, 4].set(-2.0).at[1, 5].set(-9.0)
    log_alpha["attention_heads"] = log_alpha["attention_heads"].at[2, 3].set(-9.0)
    log_alpha["mlp_blocks"] = log_alpha["mlp_blocks"].at[0].set(-9.0)
    left = closing_rule.still_open(log_alpha, 0.5, 0.02)
    # -2.0 is closed in the binary circuit, but still drawn open now and then.
    assert left["mlp_hidden"][1].tolist() == [True] * 5 + [False] + [True] * 14
    assert not left["mlp_hidden"][0].any() and not left["mlp_output"][0].any()
    assert left["attention_heads"][2].tolist() == [True, True, True, False]
    assert not left["attention_neurons"][2, 3].any() and left["attention_blocks"].all()
    binary = mg.binarise(log_alpha)
    assert all((left[name] | ~np.asarray(binary[name])).all() for name in left)


def test_layers_are_cut_where_their_widths_change() -> None:
    config = dataclasses.replace(tiny.GPT2, layers=6, mlp_width=1024)
    heads = np.array([4, 4, 0, 0, 1, 1])
    hidden = np.array([1024, 1000, 0, 0, 30, 32])
    chosen = plan(config, heads, hidden, 4)
    assert chosen.bounds == (0, 2, 4, 6)
    assert chosen.heads == (4, 0, 1) and chosen.hidden == (1024, 0, 32)


@pytest.mark.parametrize("parts", [1, 2])
def test_training_leaves_closed_nodes_out_and_never_reopens_them(
    monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    tiny_model = tiny.model("gpt2")
    execution = mg.Execution(compile_cost=1e5, accumulate=parts)
    config = mg.DiscoverConfig(
        steps=60,
        batch_size=4,
        validate_every=10,
        learning_rate=0.6,
        nested=False,
        penalty=30.0,
        warmup=0.1,
        execution=execution,
    )
    # Every gate at every step: what is left out by then, and what is open.
    states: list[tuple[mg.Masks | None, mg.Masks]] = []
    step = loop._step

    def watched(*before: Any) -> Any:
        work, state = step(*before)
        log_alpha = jax.tree.map(jnp.copy, state.trained.log_alpha)
        states.append((state.left, log_alpha))
        return work, state

    monkeypatch.setattr(loop, "_step", watched)
    records: list[dict[str, Any]] = []
    data = tiny.data(tiny_model.config)
    circuit = mg.discover(jax.random.key(0), tiny_model, data, config, on_record=records.append)
    costs = [record["cost"] for record in records if "cost" in record]
    assert costs and costs == sorted(costs, reverse=True) and costs[-1] < 0.95
    figures = mg.evaluate(tiny_model, circuit, data.validation)
    assert figures["kl"] == pytest.approx(circuit.metadata["validation"]["kl"], abs=1e-5)
    assert len(states) == 60 and states[-1][0] is not None
    before: mg.Masks | None = None
    held: dict[str, np.ndarray] = {}
    for left, log_alpha in states:
        if left is None:
            continue
        for name, open_ in left.items():
            shut = ~np.asarray(open_)
            # Out stays out, its own log-alpha does not move, and no circuit has it.
            if before is not None:
                was = ~np.asarray(before[name])
                assert (shut | ~was).all(), name
                np.testing.assert_array_equal(np.asarray(log_alpha[name])[was], held[name][was])
            held[name] = np.asarray(log_alpha[name])
            assert not (np.asarray(mg.binarise(log_alpha)[name]) & shut).any(), name
        before = left
    assert before is not None
    assert sum(int((~np.asarray(mask)).sum()) for mask in before.values()) > 10


def test_held_gates_do_not_move() -> None:
    old = mg.full_masks(tiny.GPT2, 0.0)
    new = mg.full_masks(tiny.GPT2, 1.0)
    model = tiny.model("gpt2")
    less = compacted(model, closing(tiny.GPT2))
    held = closing_rule.hold(new, old, less.open)
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf == 1.0, held), less.open)


def test_nodes_left_out_stay_closed_when_their_block_opens_again() -> None:
    model = tiny.model("gpt2")
    log_alpha = closing(tiny.GPT2)
    # Closed by its block alone but for the first neurons.
    log_alpha["mlp_hidden"] = log_alpha["mlp_hidden"].at[1].set(-1.0).at[1, :4].set(6.0)
    log_alpha["mlp_output"] = log_alpha["mlp_output"].at[1].set(6.0)
    log_alpha["mlp_blocks"] = log_alpha["mlp_blocks"].at[1].set(-3.45)
    less = compacted(model, log_alpha)
    assert np.asarray(less.open["mlp_hidden"])[1].sum() == 4
    held = closing_rule.closed(log_alpha, less.open)
    held["mlp_blocks"] = held["mlp_blocks"].at[1].set(6.0)
    kept = mg.binarise(held)
    assert kept["mlp_hidden"][1].sum() == 4
    for name, mask in kept.items():
        assert not (mask & ~less.open[name]).any(), name
