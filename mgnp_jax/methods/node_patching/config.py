"""Node patching as a method: its settings, and scores of nodes that were not removed themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from mgnp_jax.choices import check_choices
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    GRANULARITIES,
    MLP_BLOCKS,
    TABLE,
)
from mgnp_jax.masks.selection import check_size, filled
from mgnp_jax.methods.node_patching.removal import effects_of_removal
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.methods.sizing import sizing
from mgnp_jax.metrics.figures import FIGURES, FigureName
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodePatchingConfig(Search):
    """Ranks nodes by what removing each alone from the full model costs: activation patching."""

    name: ClassVar[str] = "node-patching"

    effect_on: FigureName = "score"
    """What removals are measured on: the task's own score, KL to the full model, or the probability
    of right answers less that of wrong ones."""
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
        check_choices(self)
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

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Removes one node after another, see `Search.search`."""
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
