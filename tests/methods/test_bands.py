"""Steps go through bands of prices in turn, each on what its own prices may keep."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import loop
from mgnp_jax.methods.node_pruning.method import DiscoverConfig
from mgnp_jax.methods.node_pruning.prices import Nesting
from mgnp_jax.methods.training.work import Band, prepare
from mgnp_jax.passes.budget import bytes_of
from mgnp_jax.runs.states import States
from tests import tiny

# Dear enough that soon nothing but the cheaper half of the prices keeps many of the nodes.
CONFIG = mg.DiscoverConfig(
    steps=40,
    batch_size=4,
    validate_every=10,
    learning_rate=0.6,
    warmup=0.1,
    nesting=Nesting(least=1.0, most=1e4, bands=2),
    penalties=mg.Penalties(mlp_hidden=0.02, attention_heads=0.05),
    execution=mg.Execution(compile_cost=1e5, dtype="float32"),
)


def find(config: mg.DiscoverConfig = CONFIG, **others: Any) -> mg.Circuit:
    model = tiny.model("gpt2")
    return mg.discover(jax.random.key(0), model, tiny.data(model.config), config, **others)


@pytest.mark.parametrize("votes", [1, 2])
def test_a_bands_steps_leave_out_what_its_own_prices_close(
    monkeypatch: pytest.MonkeyPatch, votes: int
) -> None:
    steps: list[tuple[Band, Any, Any, Any]] = []
    step = loop._step

    def watched(work: Any, state: Any, *others: Any) -> Any:
        before = jax.device_get(state.trained.log_alpha)
        moved = step(work, state, *others)
        after = jax.device_get(moved[1].trained.log_alpha)
        steps.append((work.band_of(state.done), state, before, after))
        return moved

    monkeypatch.setattr(loop, "_step", watched)
    records: list[dict[str, Any]] = []
    circuit = find(dataclasses.replace(CONFIG, votes=votes), on_record=records.append)
    costs = [record["cost"] for record in records if "cost" in record]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.9
    (cheap, state, before, after), (dear, *_) = steps[-2:]
    assert dear.compaction is not None and dear.cost < cheap.cost
    shut = ~np.asarray(dear.compaction.open["mlp_hidden"])
    # Closed at each of the dearer prices, and not for good: cheaper steps run it.
    left = state.left
    here = shut if left is None else shut & np.asarray(left["mlp_hidden"])
    assert here.any()
    moved = before["mlp_hidden"] != after["mlp_hidden"]
    # Of several trainings one is enough.
    assert moved.reshape(votes, *here.shape)[:, here].any()
    model = tiny.model("gpt2")
    figures = mg.evaluate(model, circuit, tiny.data(model.config).validation)
    assert circuit.metadata["validation"]["kl"] == pytest.approx(figures["kl"], abs=1e-5)


def test_a_step_of_each_band_is_logged() -> None:
    records: list[dict[str, Any]] = []
    find(dataclasses.replace(CONFIG, steps=12, log_every=5), on_record=records.append)
    steps = [(record["step"], record["band"]) for record in records if "loss" in record]
    assert steps == [(1, 0), (2, 1), (6, 1), (7, 0), (11, 0), (12, 1)]


def test_what_cheaper_steps_open_again_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop._step
    opened: list[Any] = []

    def watched(work: Any, state: Any, *others: Any) -> Any:
        work, state = step(work, state, *others)
        if opened or not state.dearer or state.dearer[0] is None or state.done % 10 != 9:
            return work, state
        open_, left = np.asarray(state.dearer[0]["mlp_hidden"]), state.left
        out = ~open_ if left is None else ~open_ & np.asarray(left["mlp_hidden"])
        if out.any():
            where = tuple(np.argwhere(out)[0])
            log_alpha = dict(state.trained.log_alpha)
            for name in ("mlp_blocks", "mlp_output"):
                log_alpha[name] = log_alpha[name].at[where[0]].set(40.0)
            log_alpha["mlp_hidden"] = log_alpha["mlp_hidden"].at[where].set(40.0)
            opened.append((state.done, where))
            state = state.replace(trained=state.trained.replace(log_alpha=log_alpha))
            # From here on nothing saves what a compilation takes.
            execution = dataclasses.replace(work.config.execution, compile_cost=1e18)
            config = dataclasses.replace(work.config, execution=execution)
            work = dataclasses.replace(work, config=config)
        return work, state

    states: list[Any] = []
    compact = loop._compact

    def compacted(*before: Any) -> Any:
        work, state = compact(*before)
        states.append((state.done, state.dearer))
        return work, state

    monkeypatch.setattr(loop, "_step", watched)
    monkeypatch.setattr(loop, "_compact", compacted)
    find(dataclasses.replace(CONFIG, steps=60))
    done, where = opened[0]
    ((dearer,),) = [left for at, left in states if at == done + 1]
    assert bool(dearer["mlp_hidden"][where])


def test_a_run_in_bands_goes_on_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, taken_up = find(), []
    unpacked = loop.unpacked

    def watched(first: Any, saved: Any) -> Any:
        taken_up.append(sorted(saved.trees))
        return unpacked(first, saved)

    monkeypatch.setattr(loop, "unpacked", watched)

    class Enough(Exception):
        pass

    with contextlib.closing(States(tmp_path, every=0.0)) as states:

        def stop(record: dict[str, Any]) -> None:
            if record.get("step") == 31:
                # What is being written, so that this step's state is put aside.
                states._wait()
            if record.get("step") == 40:
                raise Enough

        with pytest.raises(Enough):
            find(on_record=stop, saves=states)
    with contextlib.closing(States(tmp_path, every=1e6)) as states:
        found = find(saves=states)
    assert len(taken_up) == 1 and "left_1" in taken_up[0]
    chex.assert_trees_all_equal(found.log_alpha, expected.log_alpha)
    chex.assert_trees_all_equal(found.scores, expected.scores)
    chex.assert_trees_all_equal(found.masks, expected.masks)


def test_bands_share_what_is_kept_of_the_whole_model() -> None:
    model = tiny.model("gpt2")
    rest = (model, tiny.data(model.config), CONFIG, lambda record: None)
    work = prepare(jax.random.key(0), *rest)
    both = work.in_bands(2)
    assert [band.train.room for band in both.bands] == [
        type(work.train.room)(*(each // 2 for each in work.train.room))
    ] * 2
    moved = both.in_files()
    assert not moved.kept_in(object)
    first, second = (band.train.kept for band in moved.bands)
    assert first is not None and second is not None
    assert first.corrupted.embedding is second.corrupted.embedding


def test_the_budget_has_room_for_what_is_left_of_the_layers_in_each_band() -> None:
    model = tiny.model("gpt2")
    blocks = bytes_of(model.params["blocks"])

    def more(**changes: Any) -> int:
        config: DiscoverConfig = dataclasses.replace(CONFIG, **changes)
        return config.more_bytes(model.config, None)  # type: ignore[arg-type]

    assert more() == blocks
    assert more(nesting=Nesting(bands=1)) == more(nested=False) == 0
    assert more(execution=mg.Execution(compact=False, dtype="float32")) == 0
