"""Everything that can be set about training. One default for all models and tasks."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """λ of each granularity: weight of its mean chance of being open (equation 13)."""

    attention_blocks: float = 0.2
    """Whole attention blocks."""
    mlp_blocks: float = 0.1
    """Whole MLP blocks."""
    attention_heads: float = 3.0
    """Heads."""
    attention_neurons: float = 1.5
    """Head outputs, one by one."""
    mlp_hidden: float = 5.0
    """MLP neurons after the activation."""
    mlp_output: float = 1.5
    """What an MLP writes, dimension by dimension."""
    embedding: float = 0.0
    """The embedding; counts only if it is trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """How a circuit is found: loss weights, optimiser, schedules."""

    steps: int = 400
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    learning_rate: float = 0.1
    """Peak of Adam's step size on log-alpha; cosine to a tenth of it."""
    initial_log_alpha: float = 1.0
    """Where every log-alpha starts; 1.0 is open with probability 0.93."""
    gates: Literal["second_order", "straight_through", "soft"] = "second_order"
    """How gates are drawn: binary with a soft gradient, or equation 6."""
    quiet_from: float = 0.7
    """Fraction of the steps after which gates are drawn without noise."""
    kl_weight: float = 1.5
    """Weight of KL(full ‖ circuit), in nats."""
    score_weight: float = 1.25
    """Weight of |circuit's score − full model's score|, relative to the latter's size."""
    penalty: float = 2.0
    """Scales all λ."""
    penalties: Penalties = Penalties()
    """λ of each granularity."""
    warmup: float = 0.2
    """Fraction of the steps over which the penalty grows from nothing to full."""
    train_embedding: bool = False
    """Whether the embedding has a gate that is trained."""
    log_every: int = 10
    """Steps between logged lines."""
    validate_every: int = 25
    """Steps between validations of the binary circuit."""
    cache_gib: float = 4.0
    """Most memory for values of the plain passes that are kept instead of recomputed."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        positive = ("steps", "batch_size", "learning_rate", "log_every", "validate_every")
        for name in positive:
            if getattr(self, name) <= 0:
                raise MgnpError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("quiet_from", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise MgnpError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("kl_weight", "score_weight", "penalty", "cache_gib"):
            if getattr(self, name) < 0:
                raise MgnpError(f"{name} must not be negative, got {getattr(self, name)}")
