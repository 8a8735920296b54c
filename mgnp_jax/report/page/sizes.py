"""The nested circuits of a ranking, from the smallest: what a slider over size goes through."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import edge_count
from mgnp_jax.masks.granularities import NEURONS, TABLE
from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.masks.ranking import RANKING
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks

MOST_SIZES = {"node": 120, "edge": 40}
"""Circuits that a slider goes through, by level; each takes longer to find among edges."""

LEAST_KEEP = 1e-3
"""Smallest share that is asked of a ranking."""


def nested_masks(circuit: Circuit, model_config: ModelConfig) -> Iterator[Masks]:
    """Circuits of a ranking, each within the next; several may be the same.

    Args:
      circuit: with scores.
      model_config: of its model.

    Yields:
      Bool arrays of the circuit's kinds.
    """
    assert circuit.scores is not None
    level = level_of(circuit.scores)
    together = level is not EDGE and circuit.metadata.get(RANKING) is not None
    for keep in np.geomspace(LEAST_KEEP, 1, MOST_SIZES[level.name]):
        if not together:
            yield circuit.at(keep=float(keep)).masks
            continue
        # As `at` does, but metadata need not say what the model's nodes cost.
        fits = functools.partial(_is_part, model_config, float(keep))
        yield circuit.within(fits, {}).masks


def _is_part(model_config: ModelConfig, keep: float, masks: Masks) -> bool:
    return prunable_share(model_config, masks) <= keep


def steps_of(circuit: Circuit, model_config: ModelConfig) -> dict[str, Any] | None:
    """What a slider over a circuit's ranking shows at each of its steps.

    Args:
      circuit: of nodes or edges.
      model_config: of its model.

    Returns:
      None where nothing is ranked. Else, for S steps from the smallest circuit: `kept` [S], the
      share of the prunable parameters or of the edges; `edges` [S]; `first`, by granularity but
      neurons (and, of edges, by kind of reader), flat, the step from which on a node is in, S
      where it is in none; `counts`, by granularity of neurons, [S][parents], how many are in.
    """
    if circuit.scores is None:
        return None
    level = level_of(circuit.masks)
    kept: list[float] = []
    edges: list[int] = []
    trees: list[dict[str, np.ndarray]] = []
    for masks in nested_masks(circuit, model_config):
        nodes = level.nodes(model_config, masks)
        count = edge_count(level.edges(model_config, masks))
        size = count if level is EDGE else prunable_share(model_config, nodes)
        if not count or (kept and size <= kept[-1]):
            continue
        kept.append(size)
        edges.append(count)
        both = dict(nodes) | (dict(masks) if level is EDGE else {})
        trees.append({name: np.asarray(leaf, bool) for name, leaf in both.items()})
    if not trees:
        return None
    if level is EDGE:
        kept = [count / max(kept) for count in kept]
    return {
        "kept": [float(f"{each:.5g}") for each in kept],
        "edges": edges,
        "first": {n: _first(trees, n) for n in trees[0] if n in TABLE and n not in NEURONS},
        "first_edges": {n: _first(trees, n) for n in trees[0] if n not in TABLE},
        "counts": {name: _counts(trees, name) for name in NEURONS},
    }


def _first(trees: list[Mapping[str, np.ndarray]] | Any, name: str) -> list[int]:
    """The step from which on each node of a kind is in."""
    there = np.stack([tree[name].ravel() for tree in trees])
    return np.where(there.any(0), there.argmax(0), len(trees)).tolist()


def _counts(trees: list[Mapping[str, np.ndarray]] | Any, name: str) -> list[list[int]]:
    """How many neurons of each parent are in, by step."""
    return [tree[name].sum(-1).ravel().tolist() for tree in trees]
