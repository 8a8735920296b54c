"""Searches whose weights are shared by virtual CPU devices, in processes of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from tests.passes.test_sharding import results, started

FOUND = """
import dataclasses, json, sys
import jax
import mgnp_jax as mg
from mgnp_jax.passes.sharding import BatchSharding
from tests import tiny

place, parts = BatchSharding.place, []

def watched(self, model_config, weights):
    placed = place(self, model_config, weights)
    of_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))
    parts.append(of_one / sum(leaf.nbytes for leaf in jax.tree.leaves(placed)))
    return placed

BatchSharding.place = watched

def found(family, config, *executions):
    model = tiny.model(family)
    data, each = tiny.data(model.config), []
    for execution in (mg.Execution(compile_cost=config.execution.compile_cost), *executions):
        parts.clear()
        circuit = mg.discover(
            jax.random.key(0), model, data, dataclasses.replace(config, execution=execution)
        )
        learned = circuit.log_alpha or circuit.scores
        each.append({
            "parts": list(parts),
            "masks": {name: mask.tolist() for name, mask in circuit.masks.items()},
            "learned": {name: leaf.ravel().tolist() for name, leaf in learned.items()},
        })
    print(json.dumps(each))
"""

NODES = (
    FOUND
    + """
assert jax.device_count() == 8
config = mg.DiscoverConfig(
    steps=20, batch_size=8, gates="soft", train_embedding=True, learning_rate=0.2,
    kl_weight=1.75, softened_weight=0.5, score_weight=2.0,
)
for family in ("gpt2", "llama"):
    found(
        family, config,
        mg.Execution(devices=8, shard=2),
        mg.Execution(devices=8, shard=4, cache="batch", accumulate=2),
    )
"""
)

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def nodes() -> list[Found]:
    return results(started(8, NODES))


def same(alone: dict[str, Any], shared: dict[str, Any]) -> None:
    """Both have learned the same, to 1e-5."""
    moved = np.concatenate([*alone["learned"].values()])
    assert np.ptp(moved[np.isfinite(moved)]) > 0.01
    assert set(alone["learned"]) == set(shared["learned"])
    for name, expected in alone["learned"].items():
        np.testing.assert_allclose(shared["learned"][name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", [0, 1], ids=["gpt2", "llama"])
@pytest.mark.parametrize("shard", [2, 4])
def test_log_alpha_is_that_of_one_device(nodes: list[Found], family: int, shard: int) -> None:
    alone, *shared = nodes[family]
    same(alone, shared[shard // 4])
    # Norms and biases, much of so small a model, are on all devices.
    assert alone["parts"] == [1.0]
    assert max(shared[shard // 4]["parts"]) < 1.25 / shard


OTHERS = (
    FOUND
    + """
# Leaves closed nodes out on the way.
closing = mg.DiscoverConfig(
    steps=4, validate_every=2, batch_size=8, initial_log_alpha=0.0, initial_spread=3.0,
    closed_below=0.3, execution=mg.Execution(compile_cost=0),
)
found("llama", closing, mg.Execution(devices=4, shard=2, compile_cost=0))
# Adam makes long steps of slopes that are hardly more than rounding, unless told not to.
learned = {"steps": 4, "batch_size": 8, "validate_every": 4, "log_every": 4, "adam_eps": 1e-3}
found("llama", mg.METHODS["mattr"](keep=0.5, **learned), mg.Execution(devices=4, shard=2))
found("gpt2", mg.METHODS["edge-pruning"](**learned), mg.Execution(shard=4, cache="batch"))
"""
)


def test_what_is_left_of_a_model_and_learned_rankings_are_shared_too() -> None:
    compacted, nodes, edges = results(started(4, OTHERS))
    for alone, shared in (compacted, nodes, edges):
        same(alone, shared)
        assert alone["masks"] == shared["masks"]
    whole, *smaller = compacted[1]["parts"]
    assert smaller and max(whole, *smaller) < 0.75


@pytest.mark.parametrize(
    ("devices", "shard", "message"),
    [
        (8, 3, "shard = 3 does not divide devices = 8"),
        (2, 4, "shard = 4 does not divide devices = 2"),
        (8, 0, "shard must be greater than 0, got 0"),
    ],
)
def test_groups_that_cannot_be_formed_are_refused(devices: int, shard: int, message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        mg.Execution(devices=devices, shard=shard)


def test_more_devices_than_there_are_are_refused() -> None:
    with pytest.raises(mg.MgnpError, match=r"devices = 512, but JAX sees \d+ "):
        mg.load_model("gpt2-mini", shard=512)


def test_a_group_runs_the_same_prompts() -> None:
    execution = mg.Execution(devices=8, shard=4, accumulate=3)
    assert (execution.replicas, execution.parts) == (2, 6)
    assert mg.Execution(shard=4).devices == 4
    with pytest.raises(mg.MgnpError, match=r"devices / shard times .* got 8 / 4 × 3 for 16"):
        mg.DiscoverConfig(batch_size=16, execution=execution)
