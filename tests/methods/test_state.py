"""`LoopState` is all that a run carries: one put aside and taken up again goes on bit by bit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import chex
import jax
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import loop
from mgnp_jax.methods.node_pruning.state import LoopState, packed, unpacked
from tests import tiny

CONFIG = mg.DiscoverConfig(
    steps=30,
    batch_size=4,
    validate_every=10,
    learning_rate=0.6,
    nested=False,
    penalty=30.0,
    warmup=0.1,
    execution=mg.Execution(compile_cost=1e5),
)
# A price a prompt; no node is closed for good at all of them so soon.
RANKED: dict[str, Any] = {"nested": True, "penalty": 1.0, "keep": 0.3}


def put_aside(work: Any, state: LoopState) -> LoopState:
    """The state as it comes back from a file."""
    saved = packed(state)
    facts = json.loads(json.dumps(saved.facts))
    first = loop.first_state(work.config, work.model.config, work.key, work.sharding)
    return unpacked(first, dataclasses.replace(saved, facts=facts))


@pytest.mark.parametrize("asked", [{}, RANKED], ids=["price", "keep"])
def test_a_state_taken_up_again_goes_on_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, **asked)

    def find() -> mg.Circuit:
        return mg.discover(jax.random.key(0), model, tiny.data(model.config), config)

    expected = find()
    step, resumed = loop._step, []

    def interrupted(*before: Any) -> tuple[Any, LoopState]:
        work, state = step(*before)
        resumed.append(state.left is not None)
        return work, put_aside(work, state)

    monkeypatch.setattr(loop, "_step", interrupted)
    got = find()
    assert len(resumed) == 30 and (any(resumed) or config.nested)
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    for part in ("validation", "settings"):
        assert json.dumps(got.metadata[part]) == json.dumps(expected.metadata[part])
    assert got.metadata["training"]["loss"] == expected.metadata["training"]["loss"]


@pytest.mark.parametrize("how", ["name", "shape", "more"])
def test_a_state_of_other_arrays_is_refused_by_what_is_other(how: str) -> None:
    model = tiny.model("gpt2")
    work = loop.prepare(jax.random.key(0), model, tiny.data(model.config), CONFIG, print)
    first = loop.first_state(CONFIG, model.config, work.key, work.sharding)
    saved = packed(first)
    moving = dict(saved.trees["moving"])
    name = next(name for name in moving if ".mu['mlp_hidden']" in name)
    if how == "more":
        moving["[0].newer"] = moving[name]
    else:
        leaf = moving.pop(name)
        moving[name.replace(".mu", ".mean") if how == "name" else name] = leaf[:1]
    saved = dataclasses.replace(saved, trees={**saved.trees, "moving": moving})
    with pytest.raises(mg.MgnpError, match="the state of step 0 does not fit .* with the versions"):
        unpacked(first, saved)
