"""A given number of nodes of every granularity: which circuit that is, by some ranking."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.masks.granularities import TABLE, check_masks, mask_shapes
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large a circuit should be.

    Attributes:
      keep: share of the nodes of every granularity, in (0, 1].
      like: a saved circuit that has as many of every granularity; instead of a share.
    """

    keep: float
    like: Path | None = None


def wanted_counts(model_config: ModelConfig, size: Size) -> dict[str, int]:
    """How many nodes of every granularity a circuit should have.

    Args:
      model_config: the model's shape.
      size: how large it should be.

    Returns:
      Counts by granularity, at least one of each where a share is asked for.

    Raises:
      MgnpError: for a share out of range, or a circuit of another model.
    """
    if size.like is not None:
        masks = load_circuit(size.like).masks
        check_masks(model_config, masks, f"the masks of {size.like}")
        return {name: int(np.asarray(masks[name]).sum()) for name in TABLE}
    if not 0 < size.keep <= 1:
        raise MgnpError(f"keep must lie in (0, 1], got {size.keep}")
    shapes = mask_shapes(model_config)
    return {name: max(1, round(size.keep * np.prod(shapes[name]))) for name in TABLE}


def highest(scores: Masks, counts: dict[str, int]) -> Masks:
    """The nodes of highest score, every granularity by itself, parents first.

    A node can be kept where its parent is; parents are kept in order of their own score, and the
    first of each parent's children before any second one, so that no parent is left empty.

    Args:
      scores: [L, …] float by granularity.
      counts: how many to keep of each.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy. Fewer than asked for where the
      parents that are kept do not have as many.
    """
    kept: dict[str, np.ndarray] = {}
    for name, kind in TABLE.items():
        score = np.asarray(scores[name], np.float64)
        room = np.ones(score.shape, bool)
        if kind.parent is not None:
            room = np.broadcast_to(kept[kind.parent][..., None], score.shape)
        rank = np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1)
        first = rank == 0 if kind.parent is not None else np.zeros(score.shape, bool)
        order = np.lexsort((-score.ravel(), ~first.ravel(), ~room.ravel()))
        chosen = np.zeros(score.size, bool)
        chosen[order[: min(counts[name], int(room.sum()))]] = True
        kept[name] = chosen.reshape(score.shape)
    return apply_hierarchy(jax.device_put(kept))
