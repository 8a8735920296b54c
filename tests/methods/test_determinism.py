"""The same seed gives the same bits, in one process and in another, for every method."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import mgnp_jax as mg
from tests import tiny

FEW = {"steps": 4, "batch_size": 4, "validate_every": 2}

SHORT: dict[str, dict[str, Any]] = {
    "node-pruning": {
        "steps": 6,
        "batch_size": 4,
        "validate_every": 3,
        "learning_rate": 0.5,
        "warmup": 0.0,
    },
    "node-pruning-published": {"steps": 4, "batch_size": 4, "validate_every": 2},
    "edge-pruning": FEW,
    "ugs": {**FEW, "draws": 2},
    "mattr": FEW,
    "mattr-edges": FEW,
}
"""What keeps a method short; others are."""


NAMES = [name for name in mg.METHODS if not hasattr(mg.METHODS[name](), "within")]
"""Those that need no other circuit; one that does is `edge-pruning` within it."""


def found(name: str, seed: int) -> dict[str, Any]:
    """Everything that a method finds, in a form that shows each bit, and where from."""
    model = tiny.model("gpt2")
    config = mg.METHODS[name](**SHORT.get(name, {}))
    circuit = mg.discover(jax.random.key(seed), model, tiny.data(model.config), config)
    ranked = {"log_alpha": circuit.log_alpha, "scores": circuit.scores}
    return {
        "masks": mg.checksum(circuit.masks),
        **{part: None if tree is None else mg.checksum(tree) for part, tree in ranked.items()},
        "environment": circuit.metadata["environment"],
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits() -> None:
    first = {name: found(name, seed=1) for name in NAMES}
    again = {name: found(name, seed=1) for name in NAMES}
    assert first == again
    other = subprocess.run(
        [sys.executable, "-c", "import tests.methods.test_determinism as t; t.main()"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(other.stdout.splitlines()[-1]) == first
    # And there is something that a seed changes.
    assert found("random", seed=2)["masks"] != first["random"]["masks"]
    assert first["node-pruning"]["log_alpha"] is not None and first["magnitude"]["scores"]


def main() -> None:
    """What the other process prints."""
    print(json.dumps({name: found(name, seed=1) for name in NAMES}))


def test_a_circuit_says_what_it_depends_on() -> None:
    said = found("random", seed=1)["environment"]
    assert set(said["versions"]) == {
        "mgnp_jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "numpy",
        "orbax-checkpoint",
        "python",
    }
    assert said["versions"]["jax"] == jax.__version__
    assert said["versions"]["mgnp_jax"] == mg.__version__
    assert said["device"] == {
        "kind": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
    }
    assert said["model_config_hash"] == tiny.GPT2.hash()
    assert len(said["method_config_hash"]) == 64
    assert (
        said["method_config_hash"] == found("random", seed=2)["environment"]["method_config_hash"]
    )
    assert (
        said["method_config_hash"]
        != found("magnitude", seed=1)["environment"]["method_config_hash"]
    )
