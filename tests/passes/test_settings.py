"""What settings come to on the device that there is."""

from __future__ import annotations

import jax
import pytest

import mgnp_jax as mg
from mgnp_jax.passes.settings import Dtype
from mgnp_jax.runs.loading import placement_of
from tests import tiny


@pytest.mark.parametrize(
    ("platform", "dtype", "wanted"),
    [
        ("cpu", "auto", "float32"),
        ("gpu", "auto", "bfloat16"),
        ("tpu", "auto", "bfloat16"),
        ("gpu", "float32", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
    ],
)
def test_accelerators_train_in_bfloat16_by_default(
    monkeypatch: pytest.MonkeyPatch, platform: str, dtype: Dtype, wanted: str
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = mg.DiscoverConfig(execution=mg.Execution(dtype=dtype))
    assert config.execution.precision == wanted
    assert placement_of(config)["dtype"] == {"float32": "float32", "bfloat16": "stored"}[wanted]


def test_a_circuit_says_in_what_it_was_trained() -> None:
    model = tiny.model("gpt2")
    config = mg.DiscoverConfig(steps=1, batch_size=4, execution=mg.Execution(dtype="bfloat16"))
    circuit = mg.discover(jax.random.key(0), model, tiny.data(model.config), config)
    wanted = {"weights": "bfloat16", "gates": "float32", "figures": "float32"}
    assert circuit.metadata["environment"]["precision"] == wanted
    assert {leaf.dtype.name for leaf in tiny.log_alpha(circuit).values()} == {"float32"}
