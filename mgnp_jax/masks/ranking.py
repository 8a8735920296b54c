"""Rankings of nodes of all granularities together: a circuit is what lies above one number."""

from __future__ import annotations

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


def largest_above(scores: Mapping[str, Any], fits: Callable[[Masks], bool]) -> Masks:
    """The largest circuit of a ranking that fits.

    Args:
      scores: float by granularity, by `all_the_way`; what has one number comes together.
      fits: whether a circuit is small enough; true of every circuit within one of which it is.

    Returns:
      Bool arrays by granularity; the smallest circuit if none fits.
    """
    numbers = distinct(scores)
    least, most = 0, len(numbers) - 1
    while least < most:
        middle = (least + most) // 2
        fit = fits(above(scores, float(numbers[middle])))
        least, most = (least, middle) if fit else (middle + 1, most)
    return above(scores, float(numbers[least]))


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
