"""A random circuit: as many nodes of every kind as another, or a share of heads and neurons."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax

from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.controls import shuffled
from mgnp_jax.masks.granularities import mask_shapes
from mgnp_jax.masks.levels import check_masks
from mgnp_jax.masks.selection import check_size, strongest
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Keeps random nodes: what any method must beat."""

    name: ClassVar[str] = "random"

    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many nodes of every granularity are kept."""

    def __post_init__(self) -> None:
        """Refuses a size that cannot be."""
        check_size(self.keep, self.like)

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Puts nodes anywhere, see `Method.find`."""
        del data, on_record
        if self.like is not None:
            masks = load_circuit(self.like).masks
            check_masks(model.config, masks, f"the masks of {self.like}")
            return Circuit(masks=shuffled(key, masks), metadata={})
        shapes = mask_shapes(model.config)
        keys = jax.random.split(key, len(shapes))
        scores = {n: jax.random.uniform(k, s) for k, (n, s) in zip(keys, shapes.items())}
        return Circuit(masks=strongest(scores, self.keep), metadata={})
