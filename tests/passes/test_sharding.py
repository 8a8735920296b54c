"""Data parallelism on virtual CPU devices, in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.learned.config import Learned
from mgnp_jax.passes.sharding import batch_sharding

ROOT = Path(__file__).parents[2]
SCRIPT = """
import dataclasses, json, sys
import jax
import mgnp_jax as mg
from mgnp_jax.types import MgnpError
from tests import tiny

assert jax.device_count() == 8
# Said in full, so that another default is not another test.
prices = mg.Penalties(
    attention_blocks=0.01, mlp_blocks=0.14, attention_heads=0.055, attention_neurons=1e-4,
    mlp_hidden=3.5e-4, mlp_output=1.5e-4,
)
base = mg.DiscoverConfig(
    steps=20, batch_size=8, gates="soft", nested=False, train_embedding=True, learning_rate=0.2,
    kl_weight=1.75, softened_weight=0.5, score_weight=2.0, penalties=prices,
)
ways = {
    "gpt2": [mg.Execution(devices=8)],
    "llama": [mg.Execution(devices=4, cache="batch", accumulate=2)],
}
for family, changes in ways.items():
    model = tiny.model(family)
    found = []
    for execution in [mg.Execution(), *changes]:
        config = dataclasses.replace(base, execution=execution)
        circuit = mg.discover(jax.random.key(0), model, tiny.data(model.config), config)
        found.append({k: v.ravel().tolist() for k, v in circuit.log_alpha.items()})
    print(json.dumps(found))
"""


def started(devices: int, script: str, *arguments: object) -> subprocess.Popen[str]:
    """A process with so many devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe)


def results(process: subprocess.Popen[str]) -> list[Any]:
    """What it printed, a line each, once it has ended."""
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    # Gloo says there who is connected.
    return [json.loads(line) for line in out.splitlines() if not line.startswith("[Gloo]")]


@pytest.fixture(scope="module")
def found() -> list[list[dict[str, list[float]]]]:
    return results(started(8, SCRIPT))


@pytest.mark.parametrize("family", [0, 1], ids=["gpt2", "llama"])
def test_log_alpha_after_twenty_steps_is_that_of_one_device(
    found: list[list[dict[str, list[float]]]], family: int
) -> None:
    alone, shared = found[family]
    for name, expected in alone.items():
        np.testing.assert_allclose(shared[name], expected, atol=1e-5, err_msg=name)


LEARNED = """
import dataclasses, json, sys
from pathlib import Path
import jax
import mgnp_jax as mg
from mgnp_jax.passes.sharding import BatchSharding
from tests import tiny

assert jax.device_count() == 2
rows, used = BatchSharding.rows, []

def watched(self, *arguments):
    batch = rows(self, *arguments)
    used.append(len(jax.device_put(batch.base_logits).sharding.device_set))
    return batch

BatchSharding.rows = watched
circuit = Path(sys.argv[1]) / "circuit"
for name, family, more, execution in (
    ("edge-pruning", "llama", {}, mg.Execution(devices=2, cache="batch", accumulate=2)),
    ("ugs", "gpt2", {"draws": 2, "at_once": 1}, mg.Execution(devices=2)),
    ("mattr", "llama", {"keep": 0.5}, mg.Execution(devices=2)),
    ("mattr-edges", "gpt2", {}, mg.Execution(devices=2)),
    ("hybrid", "gpt2", {"within": circuit}, mg.Execution(devices=2)),
):
    if name not in sys.argv[2:]:
        continue
    model = tiny.model(family)
    data = tiny.data(model.config)
    if "within" in more:
        mg.discover(jax.random.key(1), model, data, mg.METHODS["magnitude"](keep=0.5)).save(circuit)
    # Adam makes long steps of slopes that are hardly more than rounding, unless told not to.
    config = mg.METHODS[name](
        steps=4, batch_size=8, validate_every=4, log_every=4, adam_eps=1e-3, **more
    )
    found = []
    for each in (mg.Execution(), execution):
        used.clear()
        config = dataclasses.replace(config, execution=each)
        scores = mg.discover(jax.random.key(0), model, data, config).scores
        scores = {kind: leaf.ravel().tolist() for kind, leaf in scores.items()}
        found.append({"devices": min(used), "scores": scores})
    print(json.dumps([name, *found]))
"""


BY_PROCESS = (("edge-pruning", "mattr"), ("ugs",), ("mattr-edges", "hybrid"))
"""The learned methods, by the process that they are tested in."""


def test_every_learned_method_is_tested_on_two_devices() -> None:
    learned = {name for name, kind in mg.METHODS.items() if issubclass(kind, Learned)}
    assert {name for names in BY_PROCESS for name in names} == learned


# Of nodes and of edges by default; the others share their code, and a minute each is long.
SOMETIMES = [pytest.param(names, marks=pytest.mark.full) for names in BY_PROCESS[1:]]


@pytest.mark.parametrize("names", [BY_PROCESS[0], *SOMETIMES], ids=lambda names: names[0])
def test_learned_rankings_are_those_of_one_device(names: tuple[str, ...], tmp_path: Path) -> None:
    found = {name: each for name, *each in results(started(2, LEARNED, tmp_path, *names))}
    assert set(found) == set(names)
    for name, (alone, shared) in found.items():
        assert (alone["devices"], shared["devices"]) == (1, 2), name
        moved = np.concatenate([*alone["scores"].values()])
        assert np.ptp(moved[np.isfinite(moved)]) > 0.01, name
        for kind, expected in alone["scores"].items():
            np.testing.assert_allclose(
                shared["scores"][kind], expected, atol=1e-5, err_msg=f"{name}: {kind}"
            )


TOGETHER = """
import json, sys
import jax

address, process = sys.argv[1], int(sys.argv[2])
if address:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
assert jax.device_count() == 2
import mgnp_jax as mg
from tests import tiny

model = tiny.model("gpt2")
data = tiny.data(model.config)
config = mg.DiscoverConfig(
    steps=3, validate_every=2, batch_size=8,
    # Leaves closed nodes out on the way.
    initial_log_alpha=0.0, initial_spread=3.0, closed_below=0.3,
    execution=mg.Execution(devices=2, compile_cost=0),
)
said = []
circuit = mg.discover(jax.random.key(0), model, data, config, on_record=said.append)
circuit.save(sys.argv[3])
print(json.dumps({
    "masks": {k: v.tolist() for k, v in circuit.masks.items()},
    "log_alpha": {k: v.tolist() for k, v in circuit.log_alpha.items()},
    "costs": [record["cost"] for record in said if "cost" in record],
    # The other need not wait for what does not search.
    "kl": mg.evaluate(model, circuit, data.test)["kl"] if process == 0 else None,
}))
if address:
    try:
        mg.discover(jax.random.key(process), model, data, config)
    except mg.MgnpError as error:
        assert "the same key" in str(error)
    else:
        raise AssertionError("two keys are one run")
"""


def together(folder: Path) -> list[Any]:
    """What each of two processes printed that are one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [started(1, TOGETHER, address, process, folder) for process in (0, 1)]
    try:
        return [results(process)[0] for process in both]
    finally:
        # If one has failed, the other waits for it.
        for process in both:
            process.kill()


# By command in tests/experiments/test_distributed.py, which is always run.
@pytest.mark.full
def test_two_processes_find_the_circuit_of_one_with_two_devices(tmp_path: Path) -> None:
    (alone,) = results(started(2, TOGETHER, "", 0, tmp_path / "alone"))
    both = tmp_path / "both"
    try:
        first, second = together(both)
    except (AssertionError, subprocess.TimeoutExpired):
        # Another program may have taken the port in between.
        both = tmp_path / "again"
        first, second = together(both)
    for part in ("masks", "log_alpha", "costs"):
        assert first[part] == second[part]
    assert 0 < min(first["costs"]) < 1
    assert first["masks"] == alone["masks"]
    for name, leaf in alone["log_alpha"].items():
        np.testing.assert_allclose(first["log_alpha"][name], leaf, atol=1e-5, err_msg=name)
    assert first["kl"] == pytest.approx(alone["kl"], abs=1e-6)
    saved = mg.load_circuit(both).masks
    assert {name: mask.tolist() for name, mask in saved.items()} == first["masks"]


def test_each_process_needs_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_them = [types.SimpleNamespace(process_index=index // 2) for index in range(4)]
    monkeypatch.setattr(jax, "devices", lambda: all_of_them)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(mg.MgnpError, match="ask for all 4"):
        batch_sharding(2)
