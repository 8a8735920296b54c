"""Blocks: what their nodes cost, and features that no family has alone."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.models.block import node_costs
from mgnp_jax.models.weights import init_params
from tests import tiny


def test_costs_of_all_nodes_add_up_to_the_parameters(any_family: mg.Model) -> None:
    c = any_family.config
    sizes = mg.circuit_sizes(c, mg.full_masks(c))["parameters"]
    assert sizes["total"] == sum(leaf.size for leaf in jax.tree.leaves(any_family.params))
    empty = mg.circuit_sizes(c, mg.full_masks(c, 0.0))["parameters"]
    assert empty["active"] == node_costs(c).outside


@pytest.mark.parametrize("norm_before", [False, True])
def test_a_block_may_have_its_norms_after_alone(norm_before: bool) -> None:
    c = dataclasses.replace(tiny.POST_NORM, norm_before=norm_before)
    params = init_params(jax.random.key(0), c)
    names = set(params["blocks"])
    assert {"attention_post_norm", "mlp_post_norm"} <= names
    assert ("attention_norm" in names) == norm_before
    batch = tiny.batch(c)
    ones = mg.two_stream_forward(c, params, mg.full_masks(c), batch.clean, batch.corrupted)
    np.testing.assert_allclose(ones, mg.forward(c, params, batch.clean), atol=1e-4)


def test_an_mlp_beside_attention_does_not_read_its_heads() -> None:
    edges = [
        mg.circuit_sizes(c, mg.full_masks(c))["edges"]["total"] for c in (tiny.GPT2, tiny.PARALLEL)
    ]
    # Three layers of four heads.
    assert edges[0] - edges[1] == 3 * 4
