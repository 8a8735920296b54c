"""Rankings of nodes of all granularities together: a circuit is what lies above one number."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.granularities import TABLE
from mgnp_jax.masks.hierarchy import consistent, downwards, upwards
from mgnp_jax.masks.parameters import share_kept
from mgnp_jax.models.block import NodeCosts
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

MOST = 2**40
"""Of parameters that any kind of node can have."""

RANKING = "ranking"
"""Entry of a circuit's metadata where its scores rank nodes of all granularities together."""


def all_the_way(own: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Numbers of which any cut is a circuit: that of a node and of all that it needs.

    A node counts no longer than what contains it, and no longer than something of each kind that
    it contains.

    Args:
      own: [L, …] float by granularity, each node's own number.

    Returns:
      Float32 by granularity, none above its own.
    """
    tree: dict[str, Any] = {name: np.asarray(own[name], np.float32) for name in TABLE}
    tree = downwards(tree, np.minimum)
    tree = upwards(tree, np.minimum, lambda child: child.max(-1))
    return downwards(tree, np.minimum)


def distinct(scores: Mapping[str, Any]) -> np.ndarray:
    """The numbers that nodes have, each once, the lowest first.

    Args:
      scores: float by granularity.
    """
    return np.unique(np.concatenate([np.ravel(scores[name]) for name in TABLE]))


def above(scores: Mapping[str, Any], least: float) -> Masks:
    """The circuit of the nodes with at least some number.

    Args:
      scores: float by granularity, by `all_the_way`.
      least: the number.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy.
    """
    # Scores from elsewhere may be any numbers.
    return jax.device_put(consistent({n: np.asarray(scores[n]) >= least for n in TABLE}))


def largest_above(
    scores: Mapping[str, Any],
    fits: Callable[[Masks], bool],
    own: Mapping[str, Any] | None = None,
) -> Masks:
    """The largest circuit of a ranking that fits.

    Args:
      scores: float by granularity, by `all_the_way`.
      fits: whether a circuit is small enough; true of every circuit within one of which it is.
      own: float by granularity, what rises with each node's own number: by it come those that
        `all_the_way` gave one number, such as a block with what is in it; None, or some kinds
        alone, for together.

    Returns:
      Bool arrays by granularity; the smallest circuit if none fits.
    """
    numbers = distinct(scores)
    first = bisect.bisect_left(
        range(len(numbers)), True, key=lambda i: fits(above(scores, float(numbers[i])))
    )
    # All of the number before would be too much.
    number = numbers[first - 1] if first else -np.inf
    if own is not None and set(TABLE) <= set(own) and np.isfinite(number):
        # In what `all_the_way` computes in.
        each = {name: np.asarray(own[name], np.float32) for name in TABLE}
        ranked = {name: np.asarray(scores[name], np.float32) for name in TABLE}
        levels = np.unique(np.concatenate([each[n][ranked[n] == number] for n in TABLE]))
        if np.isfinite(levels).sum() > 1:
            return _of_one_number(ranked, each, float(number), levels, fits)
    return above(scores, float(numbers[min(first, len(numbers) - 1)]))


def _of_one_number(
    scores: dict[str, np.ndarray],
    own: dict[str, np.ndarray],
    number: float,
    levels: np.ndarray,
    fits: Callable[[Masks], bool],
) -> Masks:
    """The largest circuit that fits of what has more than a number, and some of what has it.

    The lowest own number there is what all the others were given: of a block that comes last, say.
    Without it they are ranked by the next, as much of which is kept as fits.
    """
    known = levels[np.isfinite(levels)]
    lowest, highest = known[0], known[-1]
    free: dict[str, np.ndarray] = {}
    for name, leaf in own.items():
        free[name] = np.where((scores[name] == number) & (leaf == lowest), np.inf, leaf)
    rank: dict[str, np.ndarray] = {}
    for name, leaf in free.items():
        # What is freed is needed by the first of the others, and comes no sooner.
        inside = np.where(scores[name] < number, -np.inf, np.minimum(leaf, highest))
        rank[name] = np.where(scores[name] > number, np.inf, inside)
    return largest_above(all_the_way(rank), fits, free)


def together(model_config: ModelConfig) -> dict[str, Any]:
    """What such a circuit says of itself, from which shares of parameters can be told.

    Args:
      model_config: the model's shape.

    Returns:
      JSON, for the entry `RANKING` of its metadata.
    """
    costs = model_config.family.costs(model_config)._asdict()
    return {"parameters": costs}


def share_of(ranking: dict[str, Any], kv_heads: int) -> Callable[[Masks], float]:
    """How the share of prunable parameters of a circuit is told, where no model is at hand.

    Args:
      ranking: by `together`, as it is in metadata, which may be anything.
      kv_heads: KV.

    Raises:
      MgnpError: if it is not what `together` says.
    """
    said = ranking.get("parameters")
    counts: dict[str, Any] = said if isinstance(said, dict) else {}
    whole = all(type(count) is int and 0 <= count < MOST for count in counts.values())
    some = whole and sum(counts.values()) > counts.get("outside", 0)
    if set(counts) != set(NodeCosts._fields) or not some:
        raise MgnpError(
            f"the circuit's metadata {RANKING} must have parameters, with a number for each of "
            f"{', '.join(NodeCosts._fields)}; find the circuit again, or pass heads alone or edges"
        )
    costs = NodeCosts(**counts)
    return lambda masks: share_kept(costs, kv_heads, masks)
