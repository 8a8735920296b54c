"""A random ranking: its circuit is as large as another, or a share of heads and neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp

from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.edges import existing
from mgnp_jax.masks.granularities import mask_shapes
from mgnp_jax.masks.levels import EDGE, check_masks, level_of
from mgnp_jax.masks.selection import check_size, strongest
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Keeps random nodes, or edges: what any method must beat."""

    name: ClassVar[str] = "random"

    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many nodes of every granularity are kept; or as many
    edges into every kind of reader."""

    def __post_init__(self) -> None:
        """Refuses a size that cannot be."""
        check_size(self.keep, self.like)

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Puts nodes anywhere, see `Method.find`."""
        del data, on_record
        if self.like is None:
            scores = _drawn(key, mask_shapes(model.config))
            return Circuit(masks=strongest(scores, self.keep), scores=scores, metadata={})
        like = load_circuit(self.like).masks
        check_masks(model.config, like, f"the masks of {self.like}")
        level = level_of(like)
        masks = level.random(key, model.config, like)
        # What is kept comes before what is not, in an order of chance.
        scores = _drawn(jax.random.fold_in(key, 1), level.shapes(model.config, like))
        scores = {name: masks[name] + score for name, score in scores.items()}
        if level is EDGE:
            there = existing(model.config)
            scores = {n: jnp.where(there[n], score, -jnp.inf) for n, score in scores.items()}
        return Circuit(masks=masks, scores=scores, metadata={})


def _drawn(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """Uniform numbers in [0, 1) of these shapes."""
    keys = jax.random.split(key, len(shapes))
    return {n: jax.random.uniform(k, shape) for k, (n, shape) in zip(keys, shapes.items())}
