"""Any size is read off a ranking exactly, each circuit within the larger ones."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mgnp_jax as mg
from mgnp_jax.masks.edges import Graph, full_edges
from mgnp_jax.masks.granularities import NEURONS, TABLE
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.masks.ranking import RANKING, above, all_the_way, distinct, largest_above, together
from mgnp_jax.metrics.sizes import prunable_share
from tests import tiny

MODEL = tiny.LLAMA


def numbers(seed: int, lower: float) -> dict[str, np.ndarray]:
    """Own numbers, those of blocks and heads lower by so much: then their children have theirs."""
    rng = np.random.default_rng(seed)
    own = {n: rng.normal(size=x.shape) for n, x in mg.full_masks(MODEL).items() if n in TABLE}
    return {
        n: (leaf - lower * (n not in NEURONS) * rng.uniform(size=leaf.shape)).astype(np.float32)
        for n, leaf in own.items()
    }


def circuit(own: dict[str, Any]) -> mg.Circuit:
    metadata = {RANKING: together(MODEL), "graph": Graph.of(MODEL)._asdict()}
    scores = jax.device_put(all_the_way(own))
    masks = above(scores, 0.0)
    return mg.Circuit(masks=masks, scores=scores, log_alpha=own, metadata=metadata)


def acting(masks: mg.Masks) -> int:
    return sum(int(np.asarray(masks[name]).sum()) for name in NEURONS)


def within(smaller: mg.Masks, larger: mg.Masks) -> bool:
    return not any((np.asarray(m) & ~np.asarray(larger[n])).any() for n, m in smaller.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 10.0]), st.data())
def test_any_size_is_met_exactly_and_circuits_are_nested(
    seed: int, lower: float, data: st.DataObject
) -> None:
    own = numbers(seed, lower)
    ranked = circuit(own)
    # An MLP's first hidden and first output neuron come together, all others one by one.
    total = acting(mg.full_masks(MODEL))
    before = 0
    for asked in sorted(data.draw(st.lists(st.integers(2, total), min_size=1, max_size=6))):
        fits = functools.partial(lambda most, masks: acting(masks) <= most, asked)
        found = acting(largest_above(ranked.scores or {}, fits, own))
        assert asked - 2 < found <= asked and found >= before
        before = found
    smaller: mg.Masks | None = None
    for share in sorted(data.draw(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))):
        masks = ranked.at(keep=share).masks
        chex.assert_trees_all_equal(apply_hierarchy(masks), masks)
        assert smaller is None or within(smaller, masks)
        # What comes next, a neuron or two with what contains them, would be too much.
        for more in (1, 2):
            least = functools.partial(lambda n, each: acting(each) <= n, acting(masks) + more)
            larger = largest_above(ranked.scores or {}, least, own)
            if acting(larger) > acting(masks):
                assert within(masks, larger) and prunable_share(MODEL, larger) > share
        smallest = acting(masks) <= 2
        assert prunable_share(MODEL, masks) <= share or smallest
        smaller = masks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 10.0]), st.integers(1, 12))
def test_as_many_heads_as_are_asked_for(seed: int, lower: float, heads: int) -> None:
    ranked = circuit(numbers(seed, lower))
    for asked in ({"heads": heads}, {"heads": heads, "keep": 1.0}):
        kept = np.asarray(ranked.at(**asked).masks["attention_heads"])  # type: ignore[arg-type]
        assert kept.sum() == heads
        first = np.asarray(ranked.at(heads=1).masks["attention_heads"])
        assert not (first & ~kept).any()


def test_cuts_between_numbers_are_as_without_the_nodes_own() -> None:
    own = numbers(0, 10.0)
    ranking = all_the_way(own)
    for cut in distinct(ranking)[::7]:
        whole = above(ranking, float(cut))
        fits = functools.partial(lambda most, masks: acting(masks) <= most, acting(whole))
        chex.assert_trees_all_equal(largest_above(ranking, fits, own), whole)
        chex.assert_trees_all_equal(largest_above(ranking, fits), whole)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_what_is_alike_or_foreign_is_never_more_than_asked(seed: int, foreign: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = {n: x.shape for n, x in mg.full_masks(MODEL).items()}
    own = {n: rng.integers(0, 6, shape).astype(np.float32) for n, shape in shapes.items()}
    ranked = circuit(own)
    if foreign:
        others = {n: rng.integers(0, 6, shape).astype(np.float32) for n, shape in shapes.items()}
        ranked = dataclasses.replace(ranked, log_alpha=others)
    smaller: mg.Masks | None = None
    for cut in distinct(ranked.scores or {})[::-1]:
        whole = above(ranked.scores or {}, float(cut))
        # Just that size, and a little less and more.
        for share in (0.999 * (size := prunable_share(MODEL, whole)), size, 1.001 * size):
            masks = ranked.at(keep=min(share, 1.0)).masks
            chex.assert_trees_all_equal(apply_hierarchy(masks), masks)
            assert smaller is None or within(smaller, masks)
            kept, least = prunable_share(MODEL, masks), ranked.at(keep=1e-9).masks
            assert kept <= share or acting(masks) == acting(least)
            if share == size:
                chex.assert_trees_all_equal(masks, whole)
            smaller = masks


@pytest.mark.parametrize("said", [{}, {"mlp_blocks": np.ones(3, np.float32)}])
def test_without_all_of_the_nodes_own_numbers_they_come_together(said: dict[str, Any]) -> None:
    ranked = circuit(numbers(0, 10.0))
    some = dataclasses.replace(ranked, log_alpha=said)
    alone = dataclasses.replace(ranked, log_alpha=None)
    for share in (0.1, 0.3, 0.7):
        chex.assert_trees_all_equal(some.at(keep=share).masks, alone.at(keep=share).masks)
        exact = prunable_share(MODEL, ranked.at(keep=share).masks)
        assert prunable_share(MODEL, alone.at(keep=share).masks) <= exact


def test_what_nothing_tells_apart_comes_together() -> None:
    own = numbers(0, 0.0)
    # All of attention has one number, and comes last.
    alike = circuit(
        {n: np.full_like(x, -9.0) if n.startswith("att") else x for n, x in own.items()}
    )
    heads = np.asarray(alike.at(heads=11).masks["attention_heads"])
    assert heads.size == 12 and not heads.any()


def test_a_price_is_read_off() -> None:
    own = numbers(0, 1.0)
    ranked = circuit(own)
    for price in (0.25, 1.0, 4.0):
        found = ranked.at(price=price)
        chex.assert_trees_all_equal(found.masks, above(own, float(np.log(price))))
        assert found.metadata["at"] == {"price": price}
    edges = mg.Circuit(masks=full_edges(MODEL), scores=full_edges(MODEL), metadata=ranked.metadata)
    with pytest.raises(mg.MgnpError, match="of one that does not"):
        edges.at(price=1.0)
    refused: tuple[dict[str, Any], ...]
    refused = ({"price": 0.0}, {"price": float("nan")}, {"price": 1.0, "keep": 0.5})
    for asked in refused:
        with pytest.raises(mg.MgnpError, match="price must be a number above 0, alone"):
            ranked.at(**asked)
