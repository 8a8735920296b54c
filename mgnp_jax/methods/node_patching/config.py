"""Node patching as a method: its settings, and scores of nodes that were not removed themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import jax
import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    GRANULARITIES,
    MLP_BLOCKS,
    TABLE,
    mask_shapes,
)
from mgnp_jax.masks.selection import check_size
from mgnp_jax.methods.node_patching.removal import effects_of_removal
from mgnp_jax.methods.protocol import OnRecord, Saves
from mgnp_jax.methods.sizing import sizing
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodePatchingConfig:
    """Ranks nodes by what removing each alone from the full model costs: activation patching."""

    name: ClassVar[str] = "node-patching"

    effect_on: Literal["score", "kl"] = "score"
    """What removals are measured on: the task's own score, or KL to the full model."""
    signed: bool = False
    """Keep what raises it rather than what lowers it; by default both, by size alone."""
    granularities: tuple[str, ...] = (ATTENTION_HEADS, MLP_BLOCKS)
    """Whose nodes are removed. Each node takes a pass over all prompts, so neurons are left out by
    default: there are a hundred times as many. They have the score of the head or MLP that
    contains them, as blocks have the largest of what they contain."""
    prompts: int | None = 100
    """Training prompts that nodes are removed on, from all over the split; None for all."""
    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many nodes of every granularity are kept."""

    def __post_init__(self) -> None:
        """Refuses a size that cannot be, and nodes that do not rank all others."""
        check_size(self.keep, self.like)
        if self.effect_on not in FIGURES:
            raise MgnpError(
                f"effect_on must be one of {', '.join(FIGURES)}, got {self.effect_on!r}"
            )
        if self.prompts is not None and self.prompts < 1:
            raise MgnpError(f"prompts must be at least 1 (or None), got {self.prompts}")
        names = self.granularities
        known = isinstance(names, tuple) and not set(names) - set(GRANULARITIES)
        if not known or _blocks_of(names) != _blocks_of(GRANULARITIES):
            raise MgnpError(
                f"granularities must be a tuple of some of {', '.join(GRANULARITIES)}, both of "
                "attention and of MLPs, or nothing ranks the rest; got "
                f"{', '.join(names) or 'none'}"
            )

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Removes one node after another, see `Method.find`."""
        return self._find(key, model, data, on_record, None)

    def find_from(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves
    ) -> Circuit:
        """Goes on with it, see `Resumable.find_from`."""
        return self._find(key, model, data, on_record, saves)

    def _find(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        del key
        batch, figure = data.train.spread(self.prompts), FIGURES[self.effect_on]
        names = tuple(name for name in GRANULARITIES if name in self.granularities)
        effects = effects_of_removal(model, batch, names, figure, on_record, saves)
        found = {n: leaf if self.signed else np.abs(leaf) for n, leaf in effects.items()}
        scores = filled(model.config, found)
        masks = sizing(model.config, self.keep, self.like).chosen(scores)
        return Circuit(masks=masks, scores=scores, metadata={})


def _blocks_of(names: Iterable[str]) -> set[str]:
    """In which kinds of blocks some granularities are."""
    found = set()
    for name in names:
        while (parent := TABLE[name].parent) is not None:
            name = parent
        found.add(name)
    return found


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
