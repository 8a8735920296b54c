"""What values node pruning's settings may have, alone and together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from mgnp_jax.choices import check_choices
from mgnp_jax.masks.granularities import ATTENTION_HEADS, GRANULARITIES
from mgnp_jax.types import MgnpError

if TYPE_CHECKING:
    # The settings are checked as they are made, so their file reads this one.
    from mgnp_jax.methods.node_pruning.config import Settings

GateKind = Literal["mixed", "first_order", "second_order", "straight_through", "soft"]
Draws = Literal["prompt", "batch"]
Loss = Literal["matched", "hinge"]
Ablation = Literal["interchange", "zero", "mean"]
Choice = Literal["best", "last"]


def check(config: Settings) -> None:
    """Refuses settings that cannot be meant.

    Args:
      config: the settings.

    Raises:
      MgnpError: naming the setting, what was wanted and what it is.
    """
    check_choices(config)
    _check_granularities(config)
    _check_numbers(config)
    _check_together(config)


def _check_granularities(config: Settings) -> None:
    names = config.granularities
    if set(names) - set(GRANULARITIES) or not names or not isinstance(names, tuple):
        raise MgnpError(
            f"granularities must be a tuple of some of {', '.join(GRANULARITIES)}; got "
            f"{', '.join(names) or 'none'}"
        )


def _check_numbers(config: Settings) -> None:
    positive = ["steps", "batch_size", "learning_rate", "log_every", "validate_every", "votes"]
    optional = ("validation_prompts", "clip_norm", "heads")
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
    if config.max_kl is not None and len(config.asked) > 1:
        raise MgnpError(
            "ask for keep and heads or for max_kl, not for both: one circuit has one size"
        )
    if config.heads is not None and ATTENTION_HEADS not in config.granularities:
        raise MgnpError(
            f"heads asks for some of the heads, got {config.heads}, but {ATTENTION_HEADS} is not "
            "among the granularities that are trained; leave one of them out"
        )
    if not config.nested and config.asked:
        raise MgnpError(
            "keep, heads and max_kl are read off the ranking of a nested run; leave nested on, or "
            "ask for a penalty alone"
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
    if not config.asked and not least <= config.penalty <= most:
        raise MgnpError(
            f"penalty must lie within the prices of a nested run, {least:g} to {most:g} "
            f"(nesting.least, nesting.most), got {config.penalty:g}: its circuit is kept; ask for "
            "a size with keep, or have all pay that one price with nested off"
        )
    if config.nesting.bands > config.steps:
        raise MgnpError(
            f"nesting.bands must be at most steps, got {config.nesting.bands} and {config.steps}: "
            "the dearest prices would have no step"
        )
    if config.train_embedding:
        raise MgnpError(
            "train_embedding does not go with nested, as the embedding has no price; turn nested "
            "off to train it"
        )
