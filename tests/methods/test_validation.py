"""What decides which circuit of a run is kept."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning.validation import binary_objective
from tests import tiny


@pytest.mark.parametrize("score", [3.6, 4.4])
def test_objective_of_a_binary_circuit_by_hand(score: float) -> None:
    prices = mg.Penalties(attention_heads=0.5, mlp_hidden=0.25)
    # Softened answers have no part in it.
    config = mg.DiscoverConfig(
        kl_weight=2.0,
        score_weight=3.0,
        softened_weight=9.0,
        penalties=prices,
        mean_score_weight=4.0,
    )
    masks = {
        "attention_heads": jnp.array([[True, False], [True, True]]),
        "mlp_hidden": jnp.array([[True, False, False]]),
    }
    measured = {"kl": 0.1, "score_gap": 0.2, "score": score, "base_score": 4.0}
    # A tenth off, above or below: a circuit that is better than the model is not faithful.
    expected = 2 * 0.1 + 3 * 0.2 + 1.5 * (3 * 0.5 + 0.25) + 4.0 * 0.1
    assert binary_objective(
        config, tiny.model("gpt2").config, masks, measured, 1.5
    ) == pytest.approx(expected)
