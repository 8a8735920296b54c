"""The objective's gradient: it reaches every gate, and it is the true one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.granularities import NEURONS
from mgnp_jax.masks.hierarchy import downwards
from mgnp_jax.methods.node_pruning import losses
from mgnp_jax.methods.node_pruning.config import GateKind
from mgnp_jax.methods.node_pruning.gates import sample_masks
from mgnp_jax.methods.node_pruning.objective import _split, objective
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.spans import Sizes
from tests import tiny

CONFIG = mg.DiscoverConfig(steps=10, gates="soft", nested=False, train_embedding=True, warmup=0.0)


# Arrays that all batches of six prompts fit in, so that one compilation serves them.
SIZES = Sizes(whole=48, tokens=48, positions=7, prefix=3)


def gradient_of(
    model: mg.Model, config: mg.DiscoverConfig
) -> Callable[[mg.Masks, jax.Array, CachedRuns], tuple[jax.Array, mg.Masks]]:
    """The objective and its gradient in log-alpha, compiled once."""

    def loss(log_alpha: mg.Masks, key: jax.Array, streams: CachedRuns) -> jax.Array:
        params = jax.tree.map(lambda leaf: leaf.astype(streams.base_logits.dtype), model.params)
        value, _ = objective(
            *(log_alpha, key, config, model.config, params, streams, jnp.int32(5)),
        )
        return value

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("gates", get_args(GateKind))
def test_gradient_reaches_every_gate_without_the_penalty(tiny_model: mg.Model, gates: str) -> None:
    config = dataclasses.replace(CONFIG, penalty=0.0, gates=gates)  # type: ignore[arg-type]
    run = gradient_of(tiny_model, config)
    # In the middle of the sample's range, where the fewest gates are clipped.
    log_alpha = mg.full_masks(tiny_model.config, 0.0, embedding=True)
    touched = {name: np.zeros(leaf.shape, bool) for name, leaf in log_alpha.items()}
    for seed in range(12):
        batch = tiny.batch(tiny_model.config, seed=seed)
        streams = plain_runs(tiny_model.config, tiny_model.params, batch, SIZES)
        _, gradient = run(log_alpha, jax.random.key(seed), streams)
        for name, leaf in gradient.items():
            assert np.isfinite(leaf).all(), name
            touched[name] |= np.asarray(leaf) != 0
    # A sample that is clipped to 0 or 1 has no slope, so one draw does not reach them all.
    assert all(reached.all() for reached in touched.values()), touched


def test_gradient_is_that_of_finite_differences_in_float64(tiny_model: mg.Model) -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tiny_model.params)
        streams = plain_runs(tiny_model.config, params, tiny.batch(tiny_model.config, rows=3))
        rng = np.random.default_rng(2)
        log_alpha = {
            name: jnp.asarray(rng.normal(0.0, 0.5, leaf.shape), jnp.float64)
            for name, leaf in mg.full_masks(tiny_model.config, embedding=True).items()
        }
        run = gradient_of(tiny_model, CONFIG)
        _, gradient = run(log_alpha, jax.random.key(4), streams)
        for name, leaf in log_alpha.items():
            direction = jnp.asarray(rng.standard_normal(leaf.shape), jnp.float64)
            eps = 1e-6

            def along(t: float, name: str = name, d: jax.Array = direction) -> float:
                moved = {**log_alpha, name: log_alpha[name] + t * d}
                return float(run(moved, jax.random.key(4), streams)[0])

            numeric = (along(eps) - along(-eps)) / (2 * eps)
            analytic = float((gradient[name] * direction).sum())
            assert analytic != 0, name
            assert numeric == pytest.approx(analytic, rel=1e-5, abs=1e-8), name


def test_each_granularity_is_drawn_its_own_way(tiny_model: mg.Model) -> None:
    config = dataclasses.replace(CONFIG, gates="mixed")

    def opened(log_alpha: mg.Masks) -> jax.Array:
        masks = sample_masks(jax.random.key(0), log_alpha, config, 1.0, 1)
        return sum((leaf.sum() for leaf in masks.values()), jnp.zeros(()))

    slopes = jax.grad(opened)(mg.full_masks(tiny_model.config, 1.0))
    # To the first order the slope is the same whatever is drawn, to the second it is not.
    distinct = {name: len(np.unique(leaf)) for name, leaf in slopes.items()}
    assert [distinct[name] for name in (*NEURONS, "attention_heads")] == [1, 1, 1, 2]


def test_loss_terms_by_hand() -> None:
    config = mg.DiscoverConfig(kl_weight=2.0, score_weight=3.0)
    terms = {"kl": jnp.float32(0.5), "score_gap": jnp.float32(0.25), "penalty": jnp.float32(0.1)}
    assert float(losses.total(config, terms, jnp.float32(2.0))) == pytest.approx(1 + 0.75 + 0.2)
    shares = {"attention_heads": jnp.float32(0.5), "mlp_hidden": jnp.float32(0.1)}
    prices = mg.Penalties(attention_heads=3.0, mlp_hidden=5.0).of_model(tiny.GPT2)
    sizes = {"attention_heads": 8, "mlp_hidden": 100}
    assert float(losses.penalty(shares, sizes, prices)) == pytest.approx(12.0 + 50.0)


def test_softened_kl_by_hand() -> None:
    base = jnp.array([[0.0, 3.0], [6.0, 0.0]])
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-2.0))
    # The circuit is the model on the first prompt and undecided on the second.
    expected = 9 * (q * np.log(q / 0.5) + (1 - q) * np.log((1 - q) / 0.5)) / 2
    circuit = base.at[1].set(0.0)
    assert float(losses.softened_kl(circuit, base, 3.0)) == pytest.approx(expected, rel=1e-5)
    # Undecided on both.
    undecided = jnp.zeros((2, 2))
    both = expected + 9 * (p * np.log(p / 0.5) + (1 - p) * np.log((1 - p) / 0.5)) / 2
    assert float(losses.softened_kl(undecided, base, 3.0)) == pytest.approx(both, rel=1e-5)


def test_a_node_costs_the_same_in_every_model() -> None:
    penalties = mg.Penalties()
    costs = []
    for layers in (2, 4):
        masks = mg.full_masks(dataclasses.replace(tiny.GPT2, layers=layers), 0.0)
        masks["mlp_hidden"] = masks["mlp_hidden"].at[0, :3].set(1)
        masks["attention_heads"] = masks["attention_heads"].at[1, 2].set(1)
        shares = {name: leaf.mean() for name, leaf in masks.items()}
        sizes = {name: leaf.size for name, leaf in masks.items()}
        prices = penalties.of_model(tiny.GPT2)
        costs.append(float(losses.penalty(shares, sizes, prices)))
    expected = 3 * penalties.mlp_hidden + penalties.attention_heads
    np.testing.assert_allclose(costs, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "trained",
    [
        ("attention_heads", "mlp_blocks"),
        ("attention_blocks", "mlp_hidden"),
        ("attention_blocks", "mlp_blocks", "mlp_output"),
    ],
)
def test_what_stays_with_a_node_is_paid_for_with_it(trained: tuple[str, ...]) -> None:
    prices = mg.Penalties(attention_blocks=0.5)
    rng = np.random.default_rng(0)
    masks = {
        name: rng.random(leaf.shape) < 0.5 if name in trained else np.ones(leaf.shape, bool)
        for name, leaf in mg.full_masks(tiny.GPT2).items()
    }
    masks = downwards(masks, lambda own, parent: own & parent)
    shares = {name: jnp.float32(leaf.mean()) for name, leaf in masks.items()}
    sizes = {name: leaf.size for name, leaf in masks.items()}
    # All that is open is paid for once, whichever of its gates are trained.
    paid = losses.penalty(shares, sizes, prices.of_model(tiny.GPT2, trained))
    whole = losses.penalty(shares, sizes, prices.of_model(tiny.GPT2))
    assert float(paid) == pytest.approx(float(whole), rel=1e-6)


def test_closing_a_head_or_an_mlp_saves_what_its_neurons_cost() -> None:
    model = tiny.model("gpt2")
    trained = ("attention_heads", "mlp_blocks")
    config = mg.DiscoverConfig(granularities=trained, nested=False, warmup=0.0)
    runs = plain_runs(model.config, model.params, tiny.batch(model.config))

    @jax.jit
    def penalty(log_alpha: mg.Masks) -> jax.Array:
        key, step = jax.random.key(0), jnp.int32(5)
        _, terms = objective(log_alpha, key, config, model.config, model.params, runs, step)
        return terms["penalty"]

    closed = mg.full_masks(model.config, -30.0)
    full, prices = mg.full_masks(model.config), config.penalties.of_model(model.config)
    # Attention blocks are not trained, so they stay.
    left = model.config.layers * prices["attention_blocks"]
    assert float(penalty(closed)) == pytest.approx(left, rel=1e-5)
    everything = sum(prices[name] * leaf.size for name, leaf in full.items())
    assert float(penalty(mg.full_masks(model.config, 30.0))) == pytest.approx(everything, rel=1e-5)


def test_a_circuit_better_than_the_model_is_not_faithful() -> None:
    batch = tiny.batch(tiny.GPT2, rows=2)
    right, wrong = batch.targets.scores["score"].answers.tokens.T
    base = jnp.zeros((2, 37)).at[jnp.arange(2), right].set(2.0)
    better = base.at[jnp.arange(2), wrong].set(-1.0)
    worse = base.at[jnp.arange(2), wrong].set(1.0)
    streams = plain_runs(tiny.GPT2, tiny.lively_params(tiny.GPT2), batch)
    streams = dataclasses.replace(streams, base_logits=base)
    size = losses.score_size(streams)
    terms = [losses.faithfulness(CONFIG, x, streams, size) for x in (base, better, worse)]
    gaps = [float(each["score_gap"]) for each in terms]
    np.testing.assert_allclose(gaps, [0.0, 0.5, 0.5], atol=1e-6)


def test_gates_of_layers_with_nothing_left_are_split_too() -> None:
    masks = [{"mlp_hidden": jnp.ones((3, 8, 0)), "mlp_blocks": jnp.ones((3, 8))}]
    (split,), _ = _split(masks, 2)
    assert split["mlp_hidden"].shape == (3, 2, 4, 0) and split["mlp_blocks"].shape == (3, 2, 4)
