"""So many nodes, by some ranking: which circuit that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.edge_graph import without_dangling
from mgnp_jax.masks.edges import READERS
from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_HIDDEN,
    TABLE,
    mask_shapes,
)
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.masks.ranking import largest_above
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError


def check_size(keep: float, like: Path | None) -> None:
    """Refuses a share out of range, and a circuit that is not there.

    Args:
      keep: share of the nodes to keep.
      like: folder of a saved circuit.

    Raises:
      MgnpError: saying which.
    """
    if not 0 < keep <= 1:
        raise MgnpError(f"keep must lie in (0, 1], got {keep}")
    if like is not None and not Path(like).is_dir():
        raise MgnpError(f"like must be the folder of a saved circuit, and there is no {like}")


def strongest(scores: Masks, keep: float) -> Masks:
    """A share of the heads and of the MLP hidden neurons, wherever they are.

    A head is kept with all its neurons, an MLP with all its outputs, so that nearly this share of
    the prunable parameters is kept, too.

    Args:
      scores: [L, …] float by granularity; heads and hidden neurons are ranked by theirs.
      keep: share, in (0, 1].

    Returns:
      Bool arrays by granularity, consistent with the hierarchy.
    """
    kept = {name: np.ones(np.shape(scores[name]), bool) for name in TABLE}
    for name in (ATTENTION_HEADS, MLP_HIDDEN):
        score = np.asarray(scores[name], np.float64)
        chosen = np.zeros(score.size, bool)
        count = max(1, round(keep * score.size))
        chosen[np.argsort(-score, axis=None, kind="stable")[:count]] = True
        kept[name] = chosen.reshape(score.shape)
    kept[ATTENTION_NEURONS] &= kept[ATTENTION_HEADS][..., None]
    return apply_hierarchy(jax.device_put(kept))


def strongest_edges(scores: Masks, fits: Callable[[Masks], bool]) -> Masks:
    """As many of the edges of highest score as fit, those left out that lead nowhere.

    Args:
      scores: float by kind of reader; −∞ where the model has no edge.
      fits: whether a circuit is small enough; true of every circuit within one of which it is.

    Returns:
      Bool arrays by kind of reader.
    """
    names = list(scores)
    flat = np.concatenate([np.asarray(scores[name], np.float64).ravel() for name in names])
    order = np.argsort(-flat, kind="stable")[: int((flat > -np.inf).sum())]
    stops = np.cumsum([np.size(scores[name]) for name in names])[:-1]

    def first(count: int) -> Masks:
        chosen = np.zeros(flat.size, bool)
        chosen[order[:count]] = True
        parts = zip(names, np.split(chosen, stops))
        return without_dangling({n: part.reshape(np.shape(scores[n])) for n, part in parts})

    least, most = 0, len(order)
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(first(middle)) else (least, middle - 1)
    return first(least)


def strongest_nodes(scores: Masks, fits: Callable[[Masks], bool]) -> Masks:
    """As many of the heads and of the MLP hidden neurons of highest score as fit, at least one.

    Args:
      scores: float by granularity.
      fits: whether a circuit is small enough; true of every circuit within one of which it is.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy; the smallest if none fits.
    """
    # By hidden neurons, of which there are more than heads.
    least, most = 1, int(np.size(scores[MLP_HIDDEN]))
    total = most
    while least < most:
        middle = (least + most + 1) // 2
        fit = fits(strongest(scores, middle / total))
        least, most = (middle, most) if fit else (least, middle - 1)
    return strongest(scores, least / total)


def largest(
    scores: Masks,
    fits: Callable[[Masks], bool],
    ranking: dict[str, Any] | None = None,
    own: Masks | None = None,
) -> Masks:
    """The largest circuit of a ranking that fits, of nodes or of edges.

    Args:
      scores: float by granularity or by kind of reader; higher is kept longer.
      fits: whether a circuit is small enough; true of every circuit within one of which it is.
      ranking: what the circuit says of a ranking of all nodes together; None if it is none.
      own: what rises with each node's own number in such a ranking; as for `largest_above`.

    Returns:
      Bool arrays of the same kinds; of nodes, the smallest if none fits.
    """
    if set(scores) == set(READERS):
        return strongest_edges(scores, fits)
    if ranking is None:
        return strongest_nodes(scores, fits)
    return largest_above(scores, fits, own)


def as_many(scores: Masks, like: Masks) -> Masks:
    """As many nodes of every granularity as another circuit has, those of highest score.

    A node can be kept where its parent is; parents are kept in order of their own score, and the
    first of each parent's children before any second one, so that no parent is left empty.

    Args:
      scores: [L, …] float by granularity.
      like: the other circuit, consistent with the hierarchy.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy.
    """
    kept: dict[str, np.ndarray] = {}
    for name, kind in TABLE.items():
        score = np.asarray(scores[name], np.float64)
        room = np.ones(score.shape, bool)
        first = np.zeros(score.shape, bool)
        if kind.parent is not None:
            room = np.broadcast_to(kept[kind.parent][..., None], score.shape)
            rank = np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1)
            first = rank == 0
        order = np.lexsort((-score.ravel(), ~first.ravel(), ~room.ravel()))
        chosen = np.zeros(score.size, bool)
        chosen[order[: int(np.asarray(like[name]).sum())]] = True
        kept[name] = chosen.reshape(score.shape)
    return apply_hierarchy(jax.device_put(kept))


def filled(model_config: ModelConfig, found: dict[str, np.ndarray]) -> Masks:
    """Scores of all granularities from those of some.

    Args:
      model_config: the model's shape.
      found: by granularity, of attention and of MLPs; higher is kept longer.

    Returns:
      Float32 by granularity. What contains nodes of known scores has the largest of them; anything
      else that of what contains it.
    """
    scores = dict(found)
    for name, kind in reversed(TABLE.items()):
        if name in scores and kind.parent is not None and kind.parent not in found:
            best = scores[name].max(-1)
            other = scores.get(kind.parent)
            scores[kind.parent] = best if other is None else np.maximum(other, best)
    for name, shape in mask_shapes(model_config).items():
        parent = TABLE[name].parent
        if name not in scores and parent is not None:
            scores[name] = np.broadcast_to(scores[parent][..., None], shape)
    return jax.device_put({name: scores[name].astype(np.float32) for name in TABLE})
