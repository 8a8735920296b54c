"""What size a method that ranks everything is asked for, and the circuit that it then keeps."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.masks.edges import edge_count, existing
from mgnp_jax.masks.levels import EDGE, check_masks, level_of
from mgnp_jax.masks.of_size import of_size
from mgnp_jax.masks.selection import as_many
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError


class Sizing(NamedTuple):
    """A size asked for.

    Attributes:
      model_config: the model's shape.
      keep: share of the edges, or of the heads and of the MLP hidden neurons.
      like: instead, a circuit of which as many edges, or nodes of every granularity, are kept.
    """

    model_config: ModelConfig
    keep: float
    like: Masks | None

    @property
    def edges(self) -> int:
        """How many edges that is, for methods of edges."""
        if self.like is None:
            return round(self.keep * edge_count(existing(self.model_config)))
        return edge_count(level_of(self.like).edges(self.model_config, self.like))

    def chosen(self, scores: Masks) -> Masks:
        """The circuit of a ranking that has the size.

        Args:
          scores: float by granularity or by kind of reader; higher is kept longer.

        Returns:
          Bool arrays of the same kinds.

        Raises:
          MgnpError: if a score is not a number.
        """
        check_scores(scores)
        if level_of(scores) is EDGE:
            return of_size(scores, None, edges=max(self.edges, 1))
        if self.like is None:
            return of_size(scores, None, keep=self.keep)
        return as_many(scores, level_of(self.like).nodes(self.model_config, self.like))


def check_scores(scores: Masks) -> None:
    """Refuses scores that are not numbers.

    Args:
      scores: float by granularity or by kind of reader.

    Raises:
      MgnpError: saying how many of what.
    """
    none = {name: int(np.isnan(np.asarray(leaf)).sum()) for name, leaf in scores.items()}
    if any(none.values()):
        told = ", ".join(f"{count:,} of {name}" for name, count in none.items() if count)
        raise MgnpError(
            f"scores are not numbers ({told}); look for prompts on which the model itself "
            "gives none, and leave them out, or check the checkpoint"
        )


def sizing(model_config: ModelConfig, keep: float, like: Path | None) -> Sizing:
    """Reads what size is asked for.

    Args:
      model_config: the model's shape.
      keep: share to keep.
      like: folder of a saved circuit instead; None for none.

    Raises:
      MgnpError: if the circuit cannot be read, or is of another model's shape.
    """
    if like is None:
        return Sizing(model_config, keep, None)
    masks = load_circuit(like).masks
    check_masks(model_config, masks, f"the masks of {like}")
    return Sizing(model_config, keep, masks)
