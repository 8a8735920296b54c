"""Strict JAX flags for every test, and the fixtures that several files share."""

from __future__ import annotations

import jax
import pytest

import mgnp_jax as mg
from tests import tiny

# A silently broadcast mask or a key used twice is a bug that no number shows.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(params=["gpt2", "llama"])
def tiny_model(request: pytest.FixtureRequest) -> mg.Model:
    """A tiny random model of each family."""
    return tiny.model(request.param)


@pytest.fixture(scope="session")
def mini() -> mg.Model:
    """The embedded default model."""
    return mg.load_model("gpt2-mini")


@pytest.fixture(scope="session")
def mini_ioi(mini: mg.Model) -> mg.TaskData:
    """Its IOI prompts."""
    return mg.load_task("ioi", mini.tokenizer, seed=0)
