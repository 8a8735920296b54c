"""Data parallelism on eight virtual CPU devices, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
    steps=20, batch_size=8, gates="soft", train_embedding=True, learning_rate=0.2,
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


@pytest.fixture(scope="module")
def found() -> list[list[dict[str, list[float]]]]:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("family", [0, 1], ids=["gpt2", "llama"])
def test_log_alpha_after_twenty_steps_is_that_of_one_device(
    found: list[list[dict[str, list[float]]]], family: int
) -> None:
    alone, shared = found[family]
    for name, expected in alone.items():
        np.testing.assert_allclose(shared[name], expected, atol=1e-5, err_msg=name)
