"""Several rankings side by side, each of a half of the prompts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.granularities import GRANULARITIES
from mgnp_jax.methods.node_pruning.nested import log_price_of
from mgnp_jax.methods.node_pruning.objective import objective
from mgnp_jax.methods.training.batch_order import halves, prompts_of_step, rows_of_steps
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.compaction import compacted, narrow_values, plan_for
from mgnp_jax.report.votes import votes_of
from tests import tiny
from tests.experiments.test_commands import call_here

CONFIG = mg.DiscoverConfig(steps=12, batch_size=4, validate_every=6, learning_rate=0.5, votes=3)


def find(config: mg.DiscoverConfig = CONFIG) -> mg.Circuit:
    model = tiny.model("gpt2")
    return mg.discover(jax.random.key(0), model, tiny.data(model.config), config)


def on_device(arrays: dict[str, Any]) -> mg.Masks:
    return jax.device_put(arrays)


def with_further_corruptions(train: mg.Batch) -> mg.Batch:
    """Each clean prompt twice, as one with two corrupted ones has it."""
    return train.take(np.repeat(np.arange(len(train)), 2))


def test_two_and_two_share_out_the_clean_prompts() -> None:
    train = with_further_corruptions(tiny.data(tiny.GPT2).train)
    clean = [tuple(row) for row in np.asarray(train.clean).tolist()]
    parts = halves(jax.random.key(0), train, 5)
    assert len(parts) == 5
    for first, second in (parts[:2], parts[2:4]):
        assert sorted([*first, *second]) == list(range(len(train)))
        assert not {clean[row] for row in first} & {clean[row] for row in second}
        assert abs(len({clean[r] for r in first}) - len({clean[r] for r in second})) <= 1
    assert sorted(parts[0]) != sorted(parts[2]) != sorted(parts[4])
    (whole,) = halves(jax.random.key(0), train, 1)
    np.testing.assert_array_equal(whole, np.arange(len(train)))


def test_each_training_reads_its_own_half_alone() -> None:
    train, key = tiny.data(tiny.GPT2).train, jax.random.key(3)
    size = prompts_of_step(CONFIG, len(train))
    read, order = rows_of_steps(key, train, CONFIG, size)
    assert order.shape == (12, size) and size == 3 * min(4, len(train) // 2)
    for rows, half in zip(np.split(read[order], 3, axis=1), halves(key, train, 3)):
        assert set(rows.ravel()) == set(half)


def test_one_clean_prompt_cannot_be_shared_out() -> None:
    data = tiny.data(tiny.GPT2)
    data = dataclasses.replace(data, train=data.train.take(np.zeros(4, int)))
    with pytest.raises(mg.MgnpError, match="votes must be 1 with 1 training prompt, got 3"):
        mg.discover(jax.random.key(0), tiny.model("gpt2"), data, CONFIG)


def test_trainings_side_by_side_do_not_touch_one_another() -> None:
    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, votes=2, warmup=0.0)
    streams = plain_runs(model.config, model.params, tiny.batch(model.config, rows=6))

    def slopes(other: float) -> tuple[Any, dict[str, jax.Array]]:
        log_alpha = {
            name: jnp.stack([jnp.full_like(leaf, 0.5), jnp.full_like(leaf, other)])
            for name, leaf in mg.full_masks(model.config).items()
        }

        def loss(log_alpha: mg.Masks) -> Any:
            rest = (config, model.config, model.params, streams, jnp.int32(9))
            return objective(log_alpha, jax.random.key(1), *rest)

        return jax.grad(loss, has_aux=True)(log_alpha)

    (near, told), (far, _) = slopes(0.5), slopes(-2.0)
    for name in GRANULARITIES:
        np.testing.assert_allclose(near[name][0], far[name][0], rtol=1e-4, atol=1e-7, err_msg=name)
        assert np.abs(np.asarray(near[name][1] - far[name][1])).max() > 1e-6, name
    # A node costs as much as in one training: the penalty is their mean.
    prices = config.penalties.of_model(model.config)
    counts = {name: leaf.size for name, leaf in mg.full_masks(model.config).items()}
    expected = sum(prices[name] * counts[name] * float(told["kept"][name]) for name in counts)
    assert float(told["penalty"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("asked", [{}, {"heads": 3}], ids=["keep", "heads"])
def test_a_vote_is_kept_by_the_circuit_of_a_trainings_own_ranking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: dict[str, Any]
) -> None:
    from mgnp_jax.methods.node_pruning import loop

    last: list[Any] = []
    step = loop._step

    def watched(*before: Any) -> Any:
        work, state = step(*before)
        last.append(jax.device_get(state.trained.log_alpha))
        return work, state

    monkeypatch.setattr(loop, "_step", watched)
    circuit = find(dataclasses.replace(CONFIG, keep=0.3, **asked))
    config = tiny.model("gpt2").config
    assert circuit.votes is not None and circuit.log_alpha is not None
    most = prunable_share(config, circuit.masks)
    masks = []
    for k in range(3):
        own = {name: leaf[k] for name, leaf in last[-1].items()}
        alone = dataclasses.replace(circuit, scores=log_price_of(CONFIG, own), log_alpha=own)
        masks.append(alone.at(keep=most, **asked).masks)
    for name, votes in circuit.votes.items():
        shares = np.mean([np.asarray(each[name]) for each in masks], 0)
        np.testing.assert_allclose(votes, shares, atol=1e-6)
        np.testing.assert_allclose(circuit.log_alpha[name], last[-1][name].mean(0), atol=1e-5)
    assert any(0 < vote < 1 for vote in np.ravel(circuit.votes["mlp_hidden"])), "they differ"
    # They are saved, and are of the size that they were taken at alone.
    circuit.save(tmp_path / "circuit")
    loaded = mg.load_circuit(tmp_path / "circuit")
    chex.assert_trees_all_equal(loaded.votes, circuit.votes)
    assert circuit.at(keep=0.5).votes is None


def test_what_a_person_reads_of_votes() -> None:
    masks = {name: np.zeros(leaf.shape, bool) for name, leaf in mg.full_masks(tiny.GPT2).items()}
    votes = {name: np.zeros(mask.shape, np.float32) for name, mask in masks.items()}
    masks["attention_heads"][0, :2] = masks["attention_heads"][2, 1] = True
    votes["attention_heads"][0, :2] = 1.0, 0.75
    votes["attention_heads"][2, 1] = 0.75
    # Kept by some rankings, not by their mean.
    votes["attention_heads"][1, 0] = 0.5
    found = votes_of(mg.Circuit(masks=on_device(masks), votes=on_device(votes), metadata={}), 4)
    assert found["rankings"] == 4
    assert found["attention_heads"] == {"kept": 3, "all": 1, "mean": pytest.approx(2.5 / 3)}
    assert found["mlp_hidden"] == {"kept": 0, "all": 0, "mean": None}
    heads = {votes: names for votes, names in found["heads"].items() if names}
    assert heads == {"4": ["a0.h0"], "3": ["a0.h1", "a2.h1"]}


def test_strange_votes_are_refused(tmp_path: Path) -> None:
    masks = mg.full_masks(tiny.GPT2)
    masks = {name: np.asarray(leaf, bool) for name, leaf in masks.items()}
    more = {name: np.full(mask.shape, 1.5, np.float32) for name, mask in masks.items()}
    with pytest.raises(mg.MgnpError, match=r"votes .* must lie in \[0, 1\]"):
        mg.Circuit(masks=on_device(masks), votes=on_device(more), metadata={}).save(
            tmp_path / "circuit"
        )


def test_a_run_says_how_sure_its_nodes_are(tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ("--steps", 2, "--validation-prompts", 8, "--test-prompts", 8, "--control-prompts", 4)
    assert call_here("experiments.run", "--task", "ioi", "--votes", 2, "--out", out, *few) == 0
    votes = json.loads((out / "results.json").read_text())["votes"]
    assert votes["rankings"] == 2 and votes["mlp_hidden"]["kept"] > 0
    told = (out / "README.md").read_text()
    assert "How sure is each node? 2 rankings" in told and "| 2 of 2 | a0.h0" in told


def test_what_is_left_of_the_model_loses_what_it_lost() -> None:
    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, votes=2, warmup=0.0, gates="soft", noise_floor=0.0)
    streams = plain_runs(model.config, model.params, tiny.batch(model.config, rows=6))
    left = {name: np.ones(leaf.shape, bool) for name, leaf in mg.full_masks(model.config).items()}
    left["attention_heads"][:, 1], left["mlp_hidden"][:, ::3] = False, False
    left["attention_neurons"][:, 1] = False
    plan = plan_for(model.config, left, 4)
    smaller = compacted(model.config, model.params, plan, left)
    narrow = narrow_values(model.config, smaller.segments, streams.corrupted)
    # Shut at any price of the range, or open: so that no draw is another one.
    log_alpha = {
        name: jnp.stack([jnp.where(mask, 60.0, -60.0), jnp.where(mask, 61.0, -60.0)])
        for name, mask in left.items()
    }

    def loss(runs: Any, compaction: Any) -> float:
        rest = (config, model.config, model.params, runs, jnp.int32(11), compaction)
        return float(objective(log_alpha, jax.random.key(1), *rest)[0])

    whole = loss(streams, None)
    smaller_streams = streams.replace(corrupted=narrow)  # type: ignore[attr-defined]
    assert loss(smaller_streams, smaller) == pytest.approx(whole, rel=1e-5)


def test_a_plan_has_the_prompts_of_all_trainings() -> None:
    data = tiny.data(tiny.GPT2)
    few = dataclasses.replace(CONFIG, votes=8)
    programs = few.programs(tiny.GPT2, data.train.take(slice(10)))
    assert programs.prompts == 8 * 4


def test_what_no_training_keeps_is_left_out() -> None:
    # Nothing is worth keeping at these prices.
    dear = mg.Penalties(mlp_blocks=50.0, attention_heads=50.0)
    config = dataclasses.replace(
        CONFIG,
        steps=40,
        warmup=0.0,
        penalties=dear,
        learning_rate=1.0,
        execution=mg.Execution(compile_cost=0.0),
    )
    records: list[dict[str, Any]] = []
    model = tiny.model("gpt2")
    data = tiny.data(model.config)
    circuit = mg.discover(jax.random.key(0), model, data, config, on_record=records.append)
    assert any("cost" in record for record in records)
    assert circuit.votes is not None and circuit.scores is not None
