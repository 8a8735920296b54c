"""Everything that can be set about node pruning. One default for all models and tasks."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Self

import tyro

from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES
from mgnp_jax.methods.node_pruning.checks import Ablation, Choice, Draws, GateKind, Loss, check
from mgnp_jax.methods.node_pruning.prices import Nesting, Penalties
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.abstract_runs import abstract_model
from mgnp_jax.passes.budget import bytes_of
from mgnp_jax.passes.settings import Execution, that_count_alone
from mgnp_jax.passes.spans import Sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Node pruning: loss weights, optimiser, schedules."""

    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    learning_rate: float = 0.2
    """Peak of Adam's step size on log-alpha, from which it falls along a cosine."""
    final_rate: float = 0.05
    """Share of the step size that is left at the end."""
    adam_b1: float = 0.9
    """Decay of Adam's mean of gradients."""
    adam_b2: float = 0.999
    """Decay of Adam's mean of squared gradients."""
    adam_eps: float = 1e-8
    """Added to Adam's root of it."""
    weight_decay: float = 0.0
    """Of log-alpha; pulls gates towards an even chance."""
    clip_norm: float | None = None
    """Longest gradient, all gates together; longer ones are scaled down to it."""
    initial_log_alpha: float = 2.0
    """Where every log-alpha starts; 2.0 is open with probability 0.97."""
    initial_spread: float = 0.0
    """Half the width of the interval around it that they are drawn from."""
    gates: GateKind = "mixed"
    """How gates are drawn: binary (with gradients of masks/hard_concrete.py; `mixed` is first
    order for neurons, second order for the others) or by equation 6."""
    draws: Draws = "prompt"
    """Whether every prompt has a draw of its own, or the whole batch shares one."""
    noise_floor: float = 0.5
    """Least scale of the gates' noise, which falls from 1 at a rate that would end at 0.
    Some is kept against fitting gates to the training prompts one by one."""
    loss: Loss = "matched"
    """`matched`: KL, softened KL, and the score's distance from the full model's; `hinge`: KL, and
    by how much the score falls short of `margin`."""
    kl_weight: float = 2.5
    """Weight of KL(full ‖ circuit), in nats."""
    kl_over: str | None = None
    """Name of the task's KL over some tokens alone to match instead (kl_years, kl_tens)."""
    softened_weight: float = 0.5
    """Weight of KL between answers softened by `temperature`, relative to `kl_weight`; in training
    alone, as validation chooses by the figures that are reported."""
    temperature: float = 3.0
    """Divides the logits of softened answers."""
    score_weight: float = 0.5
    """Weight of |circuit's score − full model's score|, relative to the latter's size."""
    margin: float = 0.0
    """Score from which on `hinge` is satisfied."""
    nested: bool = True
    """One run for every size: each prompt of a step has a price of its own, and what is learned is
    up to which price each node is worth keeping: a ranking, of which the last counts, whatever
    `choose` says. Without it all pay one price, and there is one circuit."""
    nesting: Nesting = Nesting()
    """Which prices. Circuits of sizes that none of them leads to are guesses."""
    penalty: float = 1.0
    """The price whose circuit is kept of a ranking; without `nested` that which all pay."""
    votes: int = 1
    """Train so many rankings side by side, each on a half of the training prompts, and keep their
    mean; the circuit says how often each of its nodes is kept. Steps take as many times longer."""
    keep: float | None = None
    """Instead, the largest circuit of at most this share of the prunable parameters."""
    heads: int | None = None
    """Instead, or beside `keep`, at most so many heads: the ranking's highest."""
    max_kl: float | None = None
    """Instead, one of the smallest circuits whose KL(full ‖ circuit) on validation prompts is at
    most this, in nats."""
    penalties: Penalties = Penalties()
    """Price of one open node of each granularity."""
    ablation: Ablation = "interchange"
    """What a pruned node is given: the corrupted run's value, zero, or its mean over the corrupted
    runs of the training prompts."""
    granularities: tuple[str, ...] = GRANULARITIES
    """Granularities that are trained together; gates of the others stay open, and are paid for
    with the node that they are in."""
    warmup: float = 0.4
    """Fraction of the steps over which the penalty grows from nothing to full."""
    train_embedding: bool = False
    """Whether the embedding has a gate that is trained."""
    closed_below: float = 0.02
    """A node that is drawn open less often than this is closed for good and not run any more."""
    choose: Choice = "best"
    """The circuit of the validation with the least objective, or of the last."""
    mean_score_weight: float = 5.0
    """In that choice, weight of the relative error of the mean score, which swings from one
    validation to the next: one per cent counts as much as a head at its default price."""
    log_every: int = 10
    """Steps between logged lines."""
    validate_every: int = 20
    """Steps between validations of the binary circuit."""
    validation_prompts: int | None = None
    """Validate on the first so many prompts of the split only; on all by default."""
    execution: Annotated[Execution, tyro.conf.arg(name="")] = Execution()
    """How passes are executed."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        check(self)

    @property
    def of_a_step(self) -> Self:
        """What a compiled step depends on; the rest at its default, so as not to compile again."""
        host = (
            *("keep", "heads", "max_kl", "mean_score_weight"),
            *("log_every", "validate_every", "validation_prompts"),
        )
        default = type(self)()
        changes = {name: getattr(default, name) for name in host}
        if self.nested:
            # That price is read off the ranking afterwards.
            changes["penalty"] = self.nesting.least
        return dataclasses.replace(self, execution=that_count_alone(self.execution), **changes)

    @property
    def bands(self) -> int:
        """Bands of prices that steps go through in turn."""
        return self.nesting.bands if self.nested else 1

    @property
    def copies(self) -> int:
        """Copies of the layers' weights that may lie beside them: what is left for each band."""
        return self.bands if self.execution.compact and not self.execution.lockstep else 0

    def more_bytes(self, model_config: ModelConfig, sizes: Sizes) -> int:
        """What is left of the layers for bands but the first, see `Trained`.

        Args:
          model_config: the model's shape.
          sizes: of a step's arrays.
        """
        del sizes
        if self.copies < 2:
            return 0
        weights = abstract_model(model_config, self.execution.precision)[1]
        # Devices share them.
        return (self.copies - 1) * -(-bytes_of(weights["blocks"]) // self.execution.shard)

    @property
    def asked(self) -> dict[str, float]:
        """What is asked of the circuit to keep, beside a price."""
        sizes = {"keep": self.keep, "heads": self.heads, "max_kl": self.max_kl}
        return {name: size for name, size in sizes.items() if size is not None}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of all gates that training moves."""
        return self.granularities + (EMBEDDING,) * self.train_embedding
