"""Shapes and counts of gates, and the hierarchy."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mgnp_jax as mg
from mgnp_jax.masks.granularities import NEURONS, TABLE, as_bool, mask_shapes
from mgnp_jax.masks.hierarchy import apply_hierarchy, chance_of_acting
from mgnp_jax.masks.levels import check_masks
from mgnp_jax.models.families.gpt2 import read_config
from tests import tiny

GPT2_SMALL = read_config(
    {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
)


def test_gate_counts_of_gpt2_small_are_the_papers() -> None:
    assert mg.gate_count(GPT2_SMALL) == 55_464
    assert mg.gate_count(GPT2_SMALL, embedding=True) == 55_465


def test_full_masks_have_the_documented_shapes_and_a_strong_dtype() -> None:
    masks = mg.full_masks(tiny.GPT2, 0.5, embedding=True)
    chex.assert_shape(masks["attention_blocks"], (3,))
    chex.assert_shape(masks["mlp_blocks"], (3,))
    chex.assert_shape(masks["attention_heads"], (3, 4))
    chex.assert_shape(masks["attention_neurons"], (3, 4, 3))
    chex.assert_shape(masks["mlp_hidden"], (3, 20))
    chex.assert_shape(masks["mlp_output"], (3, 12))
    chex.assert_shape(masks["embedding"], ())
    # A weakly typed leaf would compile every jitted step again.
    assert not any(leaf.weak_type for leaf in masks.values())
    assert set(masks) - {"embedding"} == set(mg.GRANULARITIES)


@st.composite
def random_masks(draw: st.DrawFn) -> dict[str, jax.Array]:
    seed = draw(st.integers(0, 2**31))
    openness = draw(st.sampled_from([0.02, 0.1, 0.3, 0.6, 0.95]))
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.random(shape) < openness)
        for name, shape in mask_shapes(tiny.GPT2, embedding=draw(st.booleans())).items()
    }


@settings(max_examples=60, deadline=None)
@given(random_masks())
def test_hierarchy_is_idempotent_closes_only_and_is_consistent(
    masks: dict[str, jax.Array],
) -> None:
    once = apply_hierarchy(masks)
    chex.assert_trees_all_equal(once, apply_hierarchy(once))
    assert set(once) == set(masks)
    for name in masks:
        assert not np.any(np.asarray(once[name]) & ~np.asarray(masks[name])), name
    heads, neurons = np.asarray(once["attention_heads"]), np.asarray(once["attention_neurons"])
    np.testing.assert_array_equal(heads, neurons.any(-1))
    np.testing.assert_array_equal(once["attention_blocks"], heads.any(-1))
    for part in ("mlp_hidden", "mlp_output"):
        np.testing.assert_array_equal(once["mlp_blocks"], np.asarray(once[part]).any(-1))


@settings(max_examples=10, deadline=None)
@given(random_masks())
def test_hierarchy_keeps_the_networks_function(masks: dict[str, jax.Array]) -> None:
    model, batch = tiny.model("gpt2"), tiny.batch(tiny.GPT2)
    before, after = (
        mg.two_stream_forward(
            model.config, model.params, m, batch.clean, batch.corrupted, batch.attention_mask
        )
        for m in (masks, apply_hierarchy(masks))
    )
    tiny.assert_near(before, after)


def test_masks_of_another_model_are_refused_with_both_shapes() -> None:
    masks = mg.full_masks(GPT2_SMALL)
    with pytest.raises(mg.MgnpError, match=r"attention_heads: .*\(12, 12\).*wants \(3, 4\)"):
        check_masks(tiny.GPT2, masks)
    del masks["mlp_hidden"]
    with pytest.raises(mg.MgnpError, match="granularities"):
        check_masks(GPT2_SMALL, masks)


def test_soft_masks_are_no_circuit() -> None:
    with pytest.raises(mg.MgnpError, match="attention_blocks has values other than 0 and 1"):
        as_bool(mg.full_masks(tiny.GPT2, 0.5))


def test_one_table_says_what_contains_what() -> None:
    order = list(TABLE)
    shapes = mask_shapes(tiny.GPT2)
    for name, kind in TABLE.items():
        if kind.parent is not None:
            assert order.index(kind.parent) < order.index(name)
            assert shapes[name][:-1] == shapes[kind.parent]
    assert set(NEURONS) == {"attention_neurons", "mlp_hidden", "mlp_output"}


def test_a_node_acts_as_often_as_all_that_it_needs_is_open() -> None:
    rng = np.random.default_rng(0)
    chance = {name: rng.random(shape) for name, shape in mask_shapes(tiny.GPT2).items()}
    acting = chance_of_acting(chance)
    wanted = chance["attention_neurons"][1, 2, 0] * chance["attention_heads"][1, 2]
    wanted *= chance["attention_blocks"][1]
    assert acting["attention_neurons"][1, 2, 0] == pytest.approx(wanted)
    wanted = chance["mlp_hidden"][2, 7] * chance["mlp_blocks"][2] * chance["mlp_output"][2].max()
    assert acting["mlp_hidden"][2, 7] == pytest.approx(wanted)
