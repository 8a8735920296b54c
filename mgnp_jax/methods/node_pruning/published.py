"""The method as it was published, as a preset of the same engine.

Where paper (arXiv 2512.10903) and the authors' public code differ, this takes: from the paper
appendix C's prices on normalised penalties, epochs and batch size (appendix A); from the code, of
which the paper says nothing, AdamW on log-alpha with a cosine to 1e-4, its step sizes and clipping
by task, the warm-up of the penalty over 500 steps, log-alpha from 0.5 to 1.0, the margin of the
hinge, and greater-than's KL over the hundred two-digit tokens. Of IOI's margins, 1 to 4, it takes
2. AdamW's weight decay, which neither states, is 0.01, the default of the library it is from.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import numpy as np
import tyro

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import GRANULARITIES, gate_count
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.loop import find_circuit
from mgnp_jax.methods.node_pruning.prices import Penalties
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.settings import Execution
from mgnp_jax.tasks.answers import WHOLE
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfTask:
    """What was set for each task apart.

    Attributes:
      epochs: over the training prompts.
      learning_rate: peak of the step size.
      margin: of the hinge; None for none.
      clip_norm: longest gradient; None for any.
      kl_over: names of the KL that is trained on, the first that the prompts have; none for the
        whole vocabulary.
    """

    epochs: int
    learning_rate: float
    margin: float | None
    clip_norm: float | None = None
    kl_over: tuple[str, ...] = ()


GREATER_THAN = OfTask(
    epochs=200,
    learning_rate=5e-2,
    margin=None,
    clip_norm=1.0,
    kl_over=("kl_years", "kl_tens"),
)

OF_TASKS = {
    "ioi": OfTask(epochs=500, learning_rate=3e-2, margin=2.0),
    "gp": OfTask(epochs=200, learning_rate=3e-1, margin=0.1, clip_norm=1.0),
    "gt": GREATER_THAN,
    "gt-other": GREATER_THAN,
}
"""By task; prompts of one's own are trained on as IOI's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig(Search):
    """Node pruning as published: soft gates, mean-normalised penalties, KL and a hinge."""

    name: ClassVar[str] = "node-pruning-published"

    steps: int | None = None
    """Optimiser steps; by default the task's epochs."""
    batch_size: int = 32
    """Prompt pairs a step."""
    of_tasks: Annotated[dict[str, OfTask], tyro.conf.Suppress] = dataclasses.field(
        default_factory=lambda: dict(OF_TASKS)
    )
    """Epochs, step size, margin, clipping and KL by task."""
    weight_decay: float = 0.01
    """Of log-alpha."""
    final_learning_rate: float = 1e-4
    """Where the cosine ends."""
    initial_log_alpha: float = 0.75
    """Middle of the interval that log-alpha is drawn from at the start."""
    initial_spread: float = 0.25
    """Half its width."""
    warmup_steps: int = 500
    """Steps over which the penalty grows from nothing to full."""
    penalties: Penalties = Penalties(
        attention_blocks=0.2,
        mlp_blocks=0.1,
        attention_heads=3.0,
        attention_neurons=1.5,
        mlp_hidden=5.0,
        mlp_output=1.5,
    )
    """Appendix C: price of all nodes of a granularity together."""
    log_every: int = 10
    """Steps between logged lines."""
    validate_every: int = 100
    """Steps between validations of the binary circuit, which choose nothing: the last is kept."""
    validation_prompts: int | None = None
    """Validate on the first so many prompts of the split only; on all by default."""
    execution: Annotated[Execution, tyro.conf.arg(name="")] = Execution(compact=False)
    """How passes are executed."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        for name in ("steps", "batch_size"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise MgnpError(f"{name} must be greater than 0, got {value}")
        self._settings(OF_TASKS["ioi"], self.batch_size, {}, ())

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Trains gates as published and binarises the last ones, see `Search.search`."""
        if data.answer == WHOLE:
            told = "its hinge acts on each token of an answer apart, which is not in the paper"
            on_record({"passing": True, "text": f"Answers are scored whole: {told}"})
        if data.extra_corruptions:
            data = dataclasses.replace(data, train=once_each(data.train))
        return find_circuit(key, model, data, self.settings(model.config, data), on_record, saves)

    def settings(self, model_config: ModelConfig, data: TaskData) -> Settings:
        """What the engine is asked for.

        Args:
          model_config: by whose number of gates prices are divided.
          data: its task decides epochs, step size, loss; its training prompts the steps.
        """
        of = self.of_tasks.get(data.name, self.of_tasks["ioi"])
        together = self.penalties.of_model(model_config)
        prices = {
            name: together[name] / gate_count(model_config, names=(name,)) for name in GRANULARITIES
        }
        return self._settings(of, len(data.train), prices, tuple(data.train.targets.kl_over))

    def _settings(
        self, of: OfTask, prompts: int, prices: dict[str, float], known: tuple[str, ...]
    ) -> Settings:
        steps = self.steps
        if steps is None:
            steps = -(-of.epochs * prompts // min(self.batch_size, prompts))
        return Settings(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=of.learning_rate,
            final_rate=min(1.0, self.final_learning_rate / of.learning_rate),
            weight_decay=self.weight_decay,
            clip_norm=of.clip_norm,
            initial_log_alpha=self.initial_log_alpha,
            initial_spread=self.initial_spread,
            gates="soft",
            draws="batch",
            loss="hinge",
            nested=False,
            kl_weight=1.0,
            kl_over=next((name for name in of.kl_over if name in known), None),
            score_weight=0.0 if of.margin is None else 1.0,
            margin=of.margin or 0.0,
            penalties=Penalties(**prices),
            warmup=min(1.0, self.warmup_steps / steps),
            choose="last",
            log_every=self.log_every,
            validate_every=self.validate_every,
            validation_prompts=self.validation_prompts,
            execution=self.execution,
        )


def once_each(batch: Batch) -> Batch:
    """Every clean prompt with one corrupted prompt, the task's own.

    Args:
      batch: training prompts, those with further corrupted ones first.
    """
    clean = np.asarray(batch.openings().clean)
    _, last = np.unique(clean[::-1], axis=0, return_index=True)
    return batch.take(np.flatnonzero(np.isin(batch.pair_of_row, len(clean) - 1 - last)))
