"""Which circuit a ranking gives: of a share, or as large as another one that was saved."""

from __future__ import annotations

from pathlib import Path

from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.masks.edges import edge_count
from mgnp_jax.masks.levels import EDGE, check_masks, level_of
from mgnp_jax.masks.selection import as_many, of_size
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def chosen(model_config: ModelConfig, scores: Masks, keep: float, like: Path | None) -> Masks:
    """The circuit that a method's settings `keep` and `like` ask for.

    Args:
      model_config: the model's shape.
      scores: of edges or nodes; higher is kept longer.
      keep: share in (0, 1]: of the edges, or of the heads and of the MLP hidden neurons.
      like: instead, the folder of a saved circuit, of either level: as many edges as it has, or
        nodes of each granularity.

    Returns:
      Bool arrays of the same kinds.

    Raises:
      MgnpError: if the other circuit is of another model.
    """
    if like is None:
        return of_size(scores, None, keep=keep)
    other = load_circuit(like).masks
    check_masks(model_config, other, f"the masks of {like}")
    if level_of(scores) is EDGE:
        return of_size(scores, None, edges=edge_count(level_of(other).edges(model_config, other)))
    return as_many(scores, level_of(other).nodes(model_config, other))
