"""Everything that can be set about training. One default for all models and tasks."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from mgnp_jax.types import MgnpError

GateKind = Literal["second_order", "straight_through", "soft"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """λ of each granularity: weight of its mean chance of being open.

    The paper's own are equation 13's: 0.2, 0.1, 3.0, 1.5, 5.0, 1.5.
    """

    attention_blocks: float = 0.3
    """Whole attention blocks."""
    mlp_blocks: float = 1.75
    """Whole MLP blocks."""
    attention_heads: float = 18.0
    """Heads."""
    attention_neurons: float = 1.0
    """Head outputs, one by one."""
    mlp_hidden: float = 2.0
    """MLP neurons after the activation."""
    mlp_output: float = 0.5
    """What an MLP writes, dimension by dimension."""
    embedding: float = 0.0
    """The embedding; counts only if it is trained."""

    def __post_init__(self) -> None:
        """Refuses negative weights, which would reward keeping everything."""
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise MgnpError(f"penalties.{name} must not be negative, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """How a circuit is found: loss weights, optimiser, schedules."""

    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    learning_rate: float = 0.1
    """Peak of Adam's step size on log-alpha; cosine to a tenth of it."""
    initial_log_alpha: float = 2.0
    """Where every log-alpha starts; 2.0 is open with probability 0.97."""
    gates: GateKind = "second_order"
    """How gates are drawn: binary (two gradients, see masks/hard_concrete.py) or equation 6."""
    noise_floor: float = 0.5
    """Least scale of the gates' noise, which falls from 1 at a rate that would end at 0.
    Some is kept against fitting gates to the training prompts one by one."""
    kl_weight: float = 1.75
    """Weight of KL(full ‖ circuit), in nats."""
    score_weight: float = 2.0
    """Weight of |circuit's score − full model's score|, relative to the latter's size."""
    penalty: float = 1.0
    """Scales all λ."""
    penalties: Penalties = Penalties()
    """λ of each granularity."""
    warmup: float = 0.4
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
        if self.gates not in get_args(GateKind):
            raise MgnpError(f"gates must be one of {get_args(GateKind)}, got {self.gates!r}")
        positive = ("steps", "batch_size", "learning_rate", "log_every", "validate_every")
        for name in positive:
            if getattr(self, name) <= 0:
                raise MgnpError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("noise_floor", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise MgnpError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("kl_weight", "score_weight", "penalty", "cache_gib"):
            if getattr(self, name) < 0:
                raise MgnpError(f"{name} must not be negative, got {getattr(self, name)}")
