"""EAP, EAP-IG, NAP and NAP-IG: one search, of edges or nodes, at one point or along a path."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import jax
import numpy as np

from mgnp_jax.choices import check_choices
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import existing
from mgnp_jax.masks.selection import check_size
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.methods.sizing import sizing
from mgnp_jax.metrics.figures import FIGURES, FigureName
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes import effects
from mgnp_jax.passes.effect_programs import effect_programs
from mgnp_jax.passes.programs import Programs
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, Masks, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Attribution:
    """What all of them can be asked for."""

    name: ClassVar[str]
    kind: ClassVar[effects.Kind]
    instead: ClassVar[str]

    effect_on: FigureName = "score"
    """What effects are measured on: the task's own score, KL to the full model, or the probability
    of right answers less that of wrong ones."""
    signed: bool = False
    """Keep what raises it rather than what lowers it; by default both, by size alone."""
    keep: float = 0.05
    """Share to keep: of the edges; or of the heads and of the MLP hidden neurons."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many edges, or nodes of each granularity, are kept."""

    def __post_init__(self) -> None:
        """Refuses a size that cannot be, and figures that have no slope where they are taken."""
        check_size(self.keep, self.like)
        check_choices(self)
        if self.effect_on == "kl" and set(self.path.points or ()) == {1.0}:
            raise MgnpError(
                f"{self.name} on kl ranks nothing here: KL to the full model is least on clean "
                f"prompts, where its gradient is zero. Use another effect_on, or {self.instead}"
            )

    @property
    def path(self) -> effects.Path:
        """Where gradients are taken."""
        return effects.Path("inputs", (1.0,), 1)

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Ranks everything by its effect, see `Method.find`."""
        figure = FIGURES[self.effect_on]
        found = effects.effects(key, model, data.train, self.kind, figure, self.path, on_record)
        scores = ranked(model.config, found, signed=self.signed)
        size = sizing(model.config, self.keep, self.like)
        return Circuit(masks=size.chosen(scores), scores=scores, metadata={})

    def programs(self, model_config: ModelConfig, train: Batch) -> Programs:
        """Plain passes, differences, gradients, see `Planned.programs`."""
        figure = FIGURES[self.effect_on]
        return effect_programs(model_config, train, self.kind, figure, self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Integrated(_Attribution):
    """What those can be asked for that average gradients along a path."""

    along: Literal["inputs", "activations"] = "inputs"
    """From corrupted to clean along the embeddings, or along the masks of all at once."""
    points: Literal["right", "midpoint", "random"] = "right"
    """Where on the path: at k/N as EAP-IG has it, in the middle of each N-th, or anywhere, each
    prompt elsewhere (expected gradients)."""
    ig_steps: int = 10
    """N, how many gradients are averaged."""

    instead: ClassVar[str] = "more ig_steps"

    def __post_init__(self) -> None:
        """Refuses a path that cannot be."""
        if self.ig_steps < 1:
            raise MgnpError(f"ig_steps must be at least 1, got {self.ig_steps}")
        if (self.along, self.points) == ("activations", "random"):
            raise MgnpError("points random goes with along inputs, as all prompts share masks")
        super().__post_init__()

    @property
    def path(self) -> effects.Path:
        """Where gradients are taken."""
        n = self.ig_steps
        if self.points == "random":
            return effects.Path(self.along, None, n)
        back = 0.0 if self.points == "right" else 0.5
        return effects.Path(self.along, tuple((k - back) / n for k in range(1, n + 1)), n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EapConfig(_Attribution):
    """Ranks edges by their first-order effects: edge attribution patching."""

    name: ClassVar[str] = "eap"
    kind = effects.EDGES

    gradient_at: Literal["clean", "corrupted"] = "clean"
    """On which prompts the gradient is taken."""

    instead: ClassVar[str] = "gradient_at corrupted, or eap-ig"

    @property
    def path(self) -> effects.Path:
        """Where gradients are taken."""
        return effects.Path("inputs", (float(self.gradient_at == "clean"),), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EapIgConfig(_Integrated):
    """Ranks edges by gradients averaged along a path: EAP with integrated gradients."""

    name: ClassVar[str] = "eap-ig"
    kind = effects.EDGES


@dataclasses.dataclass(frozen=True, kw_only=True)
class NapConfig(_Attribution):
    """Ranks nodes of all granularities by their first-order effects: node attribution patching."""

    name: ClassVar[str] = "nap"
    kind = effects.NODES

    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""

    instead: ClassVar[str] = "nap-ig"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NapIgConfig(_Integrated):
    """Ranks nodes of all granularities by gradients averaged along a path: NAP-IG."""

    name: ClassVar[str] = "nap-ig"
    kind = effects.NODES

    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""


def ranked(model_config: ModelConfig, found: dict[str, np.ndarray], *, signed: bool) -> Masks:
    """Scores by which circuits are chosen.

    Args:
      model_config: the model's shape.
      found: effects.
      signed: what raises the figure above what lowers it; else by size alone.

    Returns:
      Float32 by name, higher is kept longer; −∞ where the model has no edge.
    """
    scores = {n: leaf if signed else np.abs(leaf) for n, leaf in found.items()}
    there = existing(model_config)
    scores = {n: np.where(there.get(n, True), leaf, -np.inf) for n, leaf in scores.items()}
    return jax.device_put({n: leaf.astype(np.float32) for n, leaf in scores.items()})
