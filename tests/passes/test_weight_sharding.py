"""Searches whose weights are shared by virtual CPU devices, in processes of their own."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from tests import tiny
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

def found(family, config, shared):
    model = tiny.model(family)
    data, each = tiny.data(model.config), []
    for execution in (mg.Execution(compile_cost=shared.compile_cost), shared):
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

CASES = """
assert jax.device_count() == 8
nodes = mg.DiscoverConfig(
    steps=20, batch_size=8, gates="soft", nested=False, train_embedding=True, learning_rate=0.2,
    kl_weight=1.75, softened_weight=0.5, score_weight=2.0,
)
# Each prompt its own price, and two trainings side by side.
ranked = mg.DiscoverConfig(steps=20, batch_size=8, gates="soft", learning_rate=0.2, votes=2)
closing = mg.DiscoverConfig(
    steps=4, validate_every=2, batch_size=8, initial_log_alpha=0.0, initial_spread=3.0,
    nested=False,
    # Leaves closed nodes out on the way.
    closed_below=0.3, execution=mg.Execution(compile_cost=0),
    # Circuits of two validations may be the same, and the better of them one by rounding.
    choose="last",
)
# Adam makes long steps of slopes that are hardly more than rounding, unless told not to.
learned = {"steps": 4, "batch_size": 8, "validate_every": 4, "log_every": 4, "adam_eps": 1e-3}
four_by_two = mg.Execution(devices=8, shard=2)
two_by_four = mg.Execution(devices=8, shard=4, cache="batch", accumulate=2)
cases = {
    "gpt2-2": ("gpt2", nodes, four_by_two),
    "gpt2-4": ("gpt2", nodes, two_by_four),
    "llama-2": ("llama", nodes, four_by_two),
    "llama-4": ("llama", nodes, two_by_four),
    "ranked-2": ("llama", ranked, four_by_two),
    "compacted-2": ("llama", closing, mg.Execution(devices=4, shard=2, compile_cost=0)),
    "mattr-2": ("llama", mg.METHODS["mattr"](keep=0.5, **learned), four_by_two),
    "edge-pruning-4": ("gpt2", mg.METHODS["edge-pruning"](**learned), mg.Execution(shard=4)),
}
for name in sys.argv[1:]:
    found(*cases[name])
"""

NAMES = ("llama-4", "compacted-2")
"""Of one process; the others take twice as long."""

OTHERS = ("gpt2-2", "gpt2-4", "llama-2", "ranked-2", "mattr-2", "edge-pruning-4")

Found = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module", params=[NAMES, pytest.param(OTHERS, marks=pytest.mark.full)])
def found(request: pytest.FixtureRequest) -> dict[str, Found]:
    names = request.param
    return dict(zip(names, results(started(8, FOUND + CASES, *names)), strict=True))


@pytest.mark.slow
def test_what_is_learned_is_that_of_one_device(found: dict[str, Found]) -> None:
    for name, (alone, shared) in found.items():
        moved = np.concatenate([*alone["learned"].values()])
        assert np.ptp(moved[np.isfinite(moved)]) > 0.01, name
        assert set(alone["learned"]) == set(shared["learned"])
        for kind, expected in alone["learned"].items():
            np.testing.assert_allclose(
                shared["learned"][kind], expected, atol=1e-5, err_msg=f"{name}: {kind}"
            )
        if name not in ("gpt2-2", "gpt2-4", "llama-2", "llama-4"):
            assert alone["masks"] == shared["masks"], name


def test_each_device_has_its_part_of_the_weights(found: dict[str, Found]) -> None:
    for name, (alone, shared) in found.items():
        assert set(alone["parts"]) == {1.0}
        # What is left of the model is shared, too.
        assert len(shared["parts"]) > 1 or not name.startswith("compacted")
        # Norms and biases, much of so small a model, are on all devices.
        assert max(shared["parts"]) < 1.25 / int(name.rpartition("-")[2]), name


TOGETHER = """
import json, sys
import jax

address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if address:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
import mgnp_jax as mg
from mgnp_jax.models.files import Stored
from tests import tiny

read, bytes_read = Stored.__getitem__, []

def counted(self, index):
    part = read(self, index)
    bytes_read.append(part.nbytes)
    return part

Stored.__getitem__ = counted
model = mg.load_model(folder, shard=2)
config = mg.DiscoverConfig(
    steps=3, validate_every=3, batch_size=8, gates="soft", execution=mg.Execution(shard=2)
)
data = tiny.data(model.config)
circuit = mg.discover(jax.random.key(0), model, data, config)
print(json.dumps({
    "read": sum(bytes_read) / sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
    "checksum": circuit.metadata["weights_checksum"],
    "log_alpha": {name: leaf.tolist() for name, leaf in circuit.log_alpha.items()},
    "kl": mg.evaluate(model, circuit, data.test)["kl"],
}))
"""


@pytest.mark.full
def test_each_of_two_processes_reads_its_part_alone(tmp_path: Path) -> None:
    mg.save_model(tiny.model("llama"), tmp_path)
    (alone,) = results(started(2, TOGETHER, "", 0, tmp_path))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [started(1, TOGETHER, address, process, tmp_path) for process in (0, 1)]
    try:
        found = [results(process)[0] for process in both]
    finally:
        # If one has failed, the other waits for it.
        for process in both:
            process.kill()
    assert alone["checksum"] == mg.checksum(tiny.model("llama").params)
    for one in found:
        # Norms, much of so small a model, are read by both.
        assert one["read"] < 0.6 < 0.99 < alone["read"]
        assert one["checksum"] == alone["checksum"]
        assert one["kl"] == pytest.approx(alone["kl"], abs=1e-6)
        for name, leaf in alone["log_alpha"].items():
            np.testing.assert_allclose(one["log_alpha"][name], leaf, atol=1e-5, err_msg=name)


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
