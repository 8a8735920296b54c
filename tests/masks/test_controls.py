"""Random circuits of the same size, complements, overlaps."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

import mgnp_jax as mg
from mgnp_jax.masks.controls import jaccard, shuffled
from mgnp_jax.masks.hierarchy import apply_hierarchy, complement
from tests import tiny


def circuit(seed: int = 0) -> mg.Masks:
    rng = np.random.default_rng(seed)
    masks = {
        name: jnp.asarray(rng.uniform(size=leaf.shape) < 0.6)
        for name, leaf in mg.full_masks(tiny.GPT2).items()
    }
    return apply_hierarchy(masks)


def test_a_random_circuit_has_as_many_nodes_of_every_granularity() -> None:
    masks = circuit()
    moved = [shuffled(jax.random.key(seed), masks) for seed in (0, 0, 1)]
    for name, mask in masks.items():
        assert moved[0][name].sum() == mask.sum(), name
    chex.assert_trees_all_equal(moved[0], moved[1])
    chex.assert_trees_all_equal(moved[0], apply_hierarchy(moved[0]))
    assert (moved[0]["mlp_hidden"] != moved[2]["mlp_hidden"]).any()
    assert (moved[0]["mlp_hidden"] != masks["mlp_hidden"]).any()


def test_circuit_and_complement_share_no_neuron_and_leave_none_out() -> None:
    masks = circuit()
    rest = complement(masks)
    chex.assert_trees_all_equal(rest, apply_hierarchy(rest))
    assert (rest["attention_neurons"] ^ masks["attention_neurons"]).all()
    assert not (rest["mlp_hidden"] & masks["mlp_hidden"]).any()
    both = rest["mlp_blocks"][:, None]
    assert ((rest["mlp_hidden"] ^ masks["mlp_hidden"]) | ~both).all()


def test_overlap_by_hand() -> None:
    a = {"mlp_hidden": jnp.array([[True, True, False]]), "mlp_blocks": jnp.array([False])}
    b = {"mlp_hidden": jnp.array([[False, True, True]]), "mlp_blocks": jnp.array([False])}
    assert jaccard(a, b) == {"mlp_hidden": 1 / 3, "mlp_blocks": 1.0}
