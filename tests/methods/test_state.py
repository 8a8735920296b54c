"""`LoopState` is all that a run carries: one put aside and taken up again goes on bit by bit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import chex
import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import loop
from mgnp_jax.methods.node_pruning.state import LoopState
from tests import tiny

CONFIG = mg.DiscoverConfig(
    steps=30,
    batch_size=4,
    validate_every=10,
    learning_rate=0.6,
    penalty=30.0,
    warmup=0.1,
    execution=mg.Execution(compile_cost=1e5),
)


def put_aside(state: LoopState) -> LoopState:
    """The state as it would come back from a file: fresh arrays, nothing shared."""

    def fresh(leaf: Any) -> Any:
        on_device = isinstance(leaf, jax.Array)
        return jax.device_put(np.array(leaf)) if on_device else np.asarray(leaf)

    return jax.tree.map(fresh, state)


@pytest.mark.parametrize("keep", [None, 0.3], ids=["price", "keep"])
def test_a_state_taken_up_again_goes_on_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, keep: float | None
) -> None:
    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, keep=keep)

    def find() -> mg.Circuit:
        return mg.discover(jax.random.key(0), model, tiny.data(model.config), config)

    expected = find()
    step, resumed = loop._step, []

    def interrupted(work: Any, state: LoopState, on_record: Any) -> LoopState:
        state = step(work, state, on_record)
        resumed.append(state.left is not None)
        return put_aside(state)

    monkeypatch.setattr(loop, "_step", interrupted)
    got = find()
    assert len(resumed) == 30 and (any(resumed) or keep is not None)
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    for part in ("validation", "settings"):
        assert json.dumps(got.metadata[part]) == json.dumps(expected.metadata[part])
    assert got.metadata["training"]["loss"] == expected.metadata["training"]["loss"]


def test_every_part_of_the_state_is_a_leaf_that_can_be_saved() -> None:
    model = tiny.model("gpt2")
    work = loop.prepare(jax.random.key(0), model, tiny.data(model.config), CONFIG)
    state = loop.first_state(CONFIG, model.config, work.key, work.sharding)
    state = loop._step(work, state, lambda record: None)
    state, _ = loop._validate(work, state, lambda record: None)
    assert state.best is not None
    for leaf in jax.tree.leaves(state):
        assert isinstance(leaf, jax.Array | np.ndarray | float | int), type(leaf)
