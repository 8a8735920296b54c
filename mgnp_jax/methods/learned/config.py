"""What all methods can be asked for that learn a ranking through gates."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import optax
import tyro

from mgnp_jax.choices import check_choices
from mgnp_jax.masks.edges import writer_count
from mgnp_jax.masks.selection import check_size
from mgnp_jax.methods.sizing import Sizing, sizing
from mgnp_jax.metrics.figures import FigureName
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.settings import Execution, that_count_alone
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.types import Masks, MgnpError

Run = Callable[[Masks], jax.Array]
"""Gates of nodes or edges → how bad the circuit is on a batch, [], see `Learned.loss_on`."""


class Fixed(NamedTuple):
    """What stays as it is from step to step, apart from the model.

    Attributes:
      there: bool by kind of reader, edges that may be kept; empty for nodes.
      before: [] share of all edges that they are.
      target: [] share of all edges to keep at the end.
    """

    there: Masks
    before: jax.Array
    target: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learned(abc.ABC):
    """Settings that all of them have, and what each says of itself for the loop."""

    of_edges: ClassVar[bool] = True

    steps: int = 3000
    """Optimiser steps."""
    batch_size: int = 32
    """Prompt pairs a step."""
    learning_rate: float = 0.8
    """Adam's step size."""
    adam_eps: float = 1e-8
    """Added to Adam's root of the mean squared gradient."""
    loss_on: FigureName = "kl"
    """What is minimised: KL to the full model; or, whatever the model's, minus the task's score or
    the probability of right answers less that of wrong ones."""
    keep: float = 0.05
    """Share to keep: of the edges; or of the heads and of the MLP hidden neurons."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many edges, or nodes of each granularity, are kept."""
    log_every: int = 50
    """Steps between logged lines."""
    validate_every: int = 500
    """Steps between validations of the binary circuit of the size; the last one is kept."""
    validation_prompts: int | None = None
    """Validate on the first so many prompts of the split only; on all by default."""
    execution: Annotated[Execution, tyro.conf.arg(name="")] = Execution()
    """How passes are executed."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        check_size(self.keep, self.like)
        positive = ["steps", "batch_size", "learning_rate", "adam_eps", "log_every"]
        positive += ["validate_every"]
        positive += ["validation_prompts"] * (self.validation_prompts is not None)
        self._check_within(positive, 0, math.inf, "must be a number greater than 0")
        check_choices(self)
        if self.of_edges and self.execution.lockstep:
            raise MgnpError(
                "cache must be dataset or batch for a method of edges, got off: their passes read "
                "the whole corrupted run at once"
            )
        self.execution.check_batch(self.batch_size)

    def _check_within(self, names: Sequence[str], low: float, high: float, wanted: str) -> None:
        """Refuses settings that do not lie between two numbers, which are not allowed themselves.

        Args:
          names: of settings.
          low: below all of them.
          high: above all of them.
          wanted: to be said, after the name.
        """
        for name in names:
            if not low < getattr(self, name) < high:
                raise MgnpError(f"{name} {wanted}, got {getattr(self, name)}")

    @property
    def of_a_step(self) -> Self:
        """What a compiled step depends on; the rest at its default, so as not to compile again."""
        host = ("keep", "like", "log_every", "validate_every", "validation_prompts")
        changes = {field.name: field.default for field in dataclasses.fields(self)}
        changes = {name: changes[name] for name in host}
        return dataclasses.replace(self, execution=that_count_alone(self.execution), **changes)

    @property
    def votes(self) -> int:
        """One training, see `Trained`."""
        return 1

    @property
    def ablation(self) -> str:
        """What is given to what is not kept: the corrupted run's value."""
        return "interchange"

    def more_bytes(self, model_config: ModelConfig, sizes: Sizes) -> int:
        """What a step takes beside a masked pass of nodes and its gradient, see `Trained`.

        Args:
          model_config: the model's shape.
          sizes: of a step's arrays.
        """
        c = model_config
        if not self.of_edges:
            return 0
        # What writers write, its gradient and a copy; and a layer's readers with theirs.
        wide = 3 * writer_count(c) + 4 * (c.heads + 2 * c.kv_heads + 1)
        return 4 * wide * sizes.tokens * c.width

    def size(self, model_config: ModelConfig) -> Sizing:
        """The size to keep.

        Args:
          model_config: the model's shape.

        Raises:
          MgnpError: if it is that of a circuit that cannot be read.
        """
        return sizing(model_config, self.keep, self.like)

    def chosen(self, size: Sizing, scores: Masks) -> Masks:
        """The circuit to keep.

        Args:
          size: asked for.
          scores: the ranking, as `scores` returns it.

        Returns:
          Bool arrays of the same kinds.
        """
        return size.chosen(scores)

    @abc.abstractmethod
    def fixed(self, model_config: ModelConfig, size: Sizing) -> Fixed:
        """What stays as it is from step to step.

        Args:
          model_config: the model's shape.
          size: to be kept at the end.
        """

    @abc.abstractmethod
    def first(self, key: jax.Array, model_config: ModelConfig) -> Any:
        """What training moves, before the first step.

        Args:
          key: [] typed key; consumed.
          model_config: the model's shape.
        """

    def optimiser(self) -> optax.GradientTransformation:
        """How it is moved."""
        return optax.adam(self.learning_rate, eps=self.adam_eps)

    @abc.abstractmethod
    def loss(
        self, moved: Any, fixed: Fixed, key: jax.Array, step: jax.Array, run: Run
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What a step minimises.

        Args:
          moved: what training moves.
          fixed: what stays.
          key: [] typed key; consumed.
          step: [] int32, from 0.
          run: how bad gates are on the step's prompts.

        Returns:
          [] the loss; its terms by name, [] each.
        """

    def told(self, bad: jax.Array) -> dict[str, jax.Array]:
        """What is minimised, by the name and with the sign that a reader knows.

        Args:
          bad: [] as `run` of `loss` returns it.
        """
        return {self.loss_on: bad if self.loss_on == "kl" else -bad}

    def note(self, terms: Mapping[str, float]) -> str:
        """What a reader should know of how training ended; by default nothing.

        Args:
          terms: of the last step's loss, see `loss`.
        """
        del terms
        return ""

    @abc.abstractmethod
    def scores(self, model_config: ModelConfig, moved: Any, fixed: Fixed) -> Masks:
        """The ranking.

        Args:
          model_config: the model's shape.
          moved: what training has moved.
          fixed: what stayed.

        Returns:
          Float32 by kind of reader (−∞ where no edge may be kept) or by granularity.
        """
