"""Everything that can be set about node pruning. One default for all models and tasks."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, Self, get_args

import tyro

from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES
from mgnp_jax.methods.node_pruning.prices import Nesting, Penalties
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.settings import Execution, that_count_alone
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.types import MgnpError

GateKind = Literal["mixed", "first_order", "second_order", "straight_through", "soft"]
Draws = Literal["prompt", "batch"]
Loss = Literal["matched", "hinge"]
Ablation = Literal["interchange", "zero", "mean"]
Choice = Literal["best", "last"]


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
    max_kl: float | None = None
    """Instead, one of the smallest circuits whose KL(full ‖ circuit) on validation prompts is at
    most this, in nats."""
    penalties: Penalties = Penalties()
    """Price of one open node of each granularity."""
    ablation: Ablation = "interchange"
    """What a pruned node is given: the corrupted run's value, zero, or its mean over the corrupted
    runs of the training prompts."""
    granularities: tuple[str, ...] = GRANULARITIES
    """Granularities that are trained together; gates of the others stay open."""
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
        _check_choices(self)
        _check_numbers(self)
        _check_together(self)

    @property
    def of_a_step(self) -> Self:
        """What a compiled step depends on; the rest at its default, so as not to compile again."""
        host = (
            *("keep", "max_kl", "mean_score_weight"),
            *("log_every", "validate_every", "validation_prompts"),
        )
        default = type(self)()
        changes = {name: getattr(default, name) for name in host}
        if self.nested:
            # That price is read off the ranking afterwards.
            changes["penalty"] = self.nesting.least
        return dataclasses.replace(self, execution=that_count_alone(self.execution), **changes)

    def more_bytes(self, model_config: ModelConfig, sizes: Sizes) -> int:
        """Nothing beside a masked pass and its gradient, see `Trained`.

        Args:
          model_config: the model's shape.
          sizes: of a step's arrays.
        """
        del model_config, sizes
        return 0

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of all gates that training moves."""
        return self.granularities + (EMBEDDING,) * self.train_embedding


def _check_choices(config: Settings) -> None:
    choices: dict[str, Any] = {
        "gates": GateKind,
        "draws": Draws,
        "loss": Loss,
        "ablation": Ablation,
        "choose": Choice,
    }
    for name, kind in choices.items():
        if getattr(config, name) not in get_args(kind):
            raise MgnpError(
                f"{name} must be one of {get_args(kind)}, got {getattr(config, name)!r}"
            )
    names = config.granularities
    if set(names) - set(GRANULARITIES) or not names or not isinstance(names, tuple):
        raise MgnpError(
            f"granularities must be a tuple of some of {', '.join(GRANULARITIES)}; got "
            f"{', '.join(names) or 'none'}"
        )


def _check_numbers(config: Settings) -> None:
    positive = ["steps", "batch_size", "learning_rate", "log_every", "validate_every", "votes"]
    optional = ("validation_prompts", "clip_norm")
    positive += [name for name in optional if getattr(config, name) is not None]
    for name in positive:
        if getattr(config, name) <= 0:
            raise MgnpError(f"{name} must be greater than 0, got {getattr(config, name)}")
    for name in ("noise_floor", "warmup", "final_rate", "closed_below"):
        if not 0 <= getattr(config, name) <= 1:
            raise MgnpError(f"{name} must lie in [0, 1], got {getattr(config, name)}")
    weights = ("kl_weight", "softened_weight", "score_weight", "penalty", "weight_decay")
    for name in (*weights, "initial_spread", "mean_score_weight"):
        if getattr(config, name) < 0:
            raise MgnpError(f"{name} must not be negative, got {getattr(config, name)}")
    if not 1 <= config.temperature < math.inf:
        raise MgnpError(f"temperature must be a number from 1 on, got {config.temperature}")
    # Infinite is no target, and JSON would not tell it from none.
    if config.max_kl is not None and not 0 < config.max_kl < math.inf:
        raise MgnpError(
            f"max_kl must be a number greater than 0, got {config.max_kl}; leave it out to ask "
            "for none"
        )
    if config.keep is not None and not 0 < config.keep < 1:
        raise MgnpError(f"keep must lie between 0 and 1, got {config.keep}")


def _check_together(config: Settings) -> None:
    if config.ablation != "interchange" and config.execution.lockstep:
        raise MgnpError(
            f"ablation must be interchange with cache off, got {config.ablation}: nothing but "
            "the corrupted run goes beside the masked one; leave cache at another mode"
        )
    if config.loss == "hinge" and config.choose == "best" and not config.nested:
        raise MgnpError(
            "choose must be last with the loss hinge, got best: what circuits are chosen by is "
            "their distance from the model's score"
        )
    if config.keep is not None and config.max_kl is not None:
        raise MgnpError("ask for keep or for max_kl, not for both: one circuit has one size")
    if not config.nested and (config.keep is not None or config.max_kl is not None):
        raise MgnpError(
            "keep and max_kl are read off the ranking of a nested run; leave nested on, or ask for "
            "a penalty alone"
        )
    if not config.nested and config.votes > 1:
        raise MgnpError(f"votes must be 1 without nested, got {config.votes}: they are of rankings")
    if config.votes > 1 and config.clip_norm is not None:
        raise MgnpError(
            f"clip_norm does not go with votes: the {config.votes} trainings would share one "
            "length; leave one of them out"
        )
    if config.nested:
        _check_nested(config)
    config.execution.check_batch(config.votes * config.batch_size)


def _check_nested(config: Settings) -> None:
    if config.draws != "prompt":
        raise MgnpError(
            "draws must be prompt with nested, got batch: each prompt has a price of its own; turn "
            "nested off to have all share a draw"
        )
    least, most = config.nesting.least, config.nesting.most
    read_off = config.keep is None and config.max_kl is None
    if read_off and not least <= config.penalty <= most:
        raise MgnpError(
            f"penalty must lie within the prices of a nested run, {least:g} to {most:g} "
            f"(nesting.least, nesting.most), got {config.penalty:g}: its circuit is kept; ask for "
            "a size with keep, or have all pay that one price with nested off"
        )
    if config.train_embedding:
        raise MgnpError(
            "train_embedding does not go with nested, as the embedding has no price; turn nested "
            "off to train it"
        )
