"""A random circuit: as many nodes of every kind as another, or a share of every kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.controls import shuffled
from mgnp_jax.masks.granularities import mask_shapes
from mgnp_jax.masks.selection import Size, highest, wanted_counts
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Keeps random nodes: what any method must beat."""

    name: ClassVar[str] = "random"

    keep: float = 0.1
    """Share of the nodes of every granularity to keep."""
    like: Path | None = None
    """Saved circuit to keep as many nodes of every granularity as, instead."""

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Puts nodes anywhere, see `Method.find`."""
        del data, on_record
        counts = wanted_counts(model.config, Size(keep=self.keep, like=self.like))
        anywhere = {n: jnp.zeros(s) for n, s in mask_shapes(model.config).items()}
        # Which nodes these are does not matter: they all change places.
        return Circuit(masks=shuffled(key, highest(anywhere, counts)), metadata={})
