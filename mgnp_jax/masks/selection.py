"""So many nodes, by some ranking: which circuit that is."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_HIDDEN,
    TABLE,
)
from mgnp_jax.masks.hierarchy import apply_hierarchy
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
