"""Edge pruning: Hard-Concrete gates on edges, and a Lagrangian that leads to a size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from mgnp_jax.masks.hard_concrete import soft_gates
from mgnp_jax.methods.learned.config import Fixed, Run
from mgnp_jax.methods.learned.edge_gates import (
    OfEdges,
    each_edge,
    key_each,
    mean_over,
    ranked_edges,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

LINEAR, SQUARED = "linear", "squared"
"""The two multipliers, of the size's error and of its square."""

PUBLISHED_STEPS, MOST_DECAY = 3000, 0.1
"""For which the decay is said, and the most that a shorter run has: log-alpha cannot go farther
from zero than one over it."""

FAR = 2.0
"""As many times the size aimed at are too many at the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgePruningConfig(OfEdges):
    """Gates on edges, trained to a size by a Lagrangian: edge pruning as published.

    One draw of the gates serves a whole batch. The size is the mean of the gates that are drawn; at
    the end as many edges of highest log-alpha are kept as were asked for.
    """

    name: ClassVar[str] = "edge-pruning"

    multiplier_rate: float = 0.8
    """Step size of both multipliers, which climb."""
    weight_decay: float = 0.01
    """Of log-alpha and both multipliers, times the step size. It brings gates to where draws have a
    slope, which hardly any has as far up as they start. In runs of fewer than 3,000 steps log-alpha
    decays faster, up to 0.1, so as to come as far."""
    initial_log_alpha: float = 10.0
    """Mean of log-alpha before the first step."""
    initial_spread: float = 0.01
    """Standard deviation around it."""
    warmup: float = 1 / 15
    """Share of the steps over which the step size grows from nothing; then it falls to nothing."""
    ramp: float = 5 / 6
    """Share of the steps over which the size aimed at falls from that of all edges to `keep`."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        super().__post_init__()
        for name in ("warmup", "ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise MgnpError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("multiplier_rate", "initial_spread", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MgnpError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        self._check_within(("initial_log_alpha",), -math.inf, math.inf, "must be a number")

    @property
    def done_before(self) -> dict[str, Any]:
        """What runs did before a setting was there, where that is not its default."""
        # The size was another, too, so that no decay of now is what they had.
        return {"weight_decay": None}

    def first(self, key: jax.Array, model_config: ModelConfig) -> Any:
        """Log-alpha and multipliers, see `Learned.first`."""

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return self.initial_log_alpha + self.initial_spread * jax.random.normal(key, shape)

        none = {name: jnp.zeros(()) for name in (LINEAR, SQUARED)}
        return {"log_alpha": each_edge(key, model_config, draw), "multipliers": none}

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW down for log-alpha, up for the multipliers; both by the same schedule."""
        warm = round(self.warmup * self.steps)
        faster = min(self.weight_decay * PUBLISHED_STEPS / self.steps, MOST_DECAY)
        faster = max(self.weight_decay, faster)

        def moving(peak: float, decay: float) -> optax.GradientTransformation:
            falling = optax.linear_schedule(peak, 0.0, max(self.steps - warm, 1))
            rate = optax.join_schedules(
                [optax.linear_schedule(0.0, peak, max(warm, 1)), falling], [warm]
            )
            return optax.adamw(rate, eps=self.adam_eps, weight_decay=decay)

        return optax.partition(
            {
                "down": moving(self.learning_rate, faster),
                # Up the slope, and yet towards zero by the decay.
                "up": optax.chain(
                    optax.scale(-1.0), moving(self.multiplier_rate, self.weight_decay)
                ),
            },
            {"log_alpha": "down", "multipliers": "up"},
        )

    def loss(
        self, moved: Any, fixed: Fixed, key: jax.Array, step: jax.Array, run: Run
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Badness, and the Lagrangian of how far the size is from that aimed at by now."""
        log_alpha, multipliers = moved["log_alpha"], moved["multipliers"]
        keys = key_each(key, log_alpha)
        gates = {n: soft_gates(keys[n], leaf) * fixed.there[n] for n, leaf in log_alpha.items()}
        kept = mean_over(fixed.there, gates) * fixed.before
        part = jnp.minimum(step / max(self.ramp * self.steps, 1.0), 1.0)
        aimed = fixed.before + part * (fixed.target - fixed.before)
        # Above zero where too many are gone.
        off = aimed - kept
        penalty = multipliers[LINEAR] * off + multipliers[SQUARED] * jnp.square(off)
        bad = run(gates)
        told = {**self.told(bad), "edges_open": kept, "edges_aimed_at": aimed}
        return bad + penalty, told

    def note(self, terms: Mapping[str, float]) -> str:
        """Says so where training did not come to its size, see `Learned.note`."""
        drawn, aimed = terms["edges_open"], terms["edges_aimed_at"]
        # A little more than the circuit has: at the end gates are seldom quite open or shut.
        if drawn <= max(FAR * aimed, aimed + 0.01):
            return ""
        return (
            f"Training did not come to the size: its gates add up to {100 * drawn:.3g}% of the "
            f"edges, where {100 * aimed:.3g}% were aimed at, so the circuit is part of what was "
            "trained, and may do less than the gates did; give it more --steps, a lower "
            "--initial-log-alpha, or a larger --keep"
        )

    def scores(self, model_config: ModelConfig, moved: Any, fixed: Fixed) -> Masks:
        """Log-alpha, see `Learned.scores`."""
        return ranked_edges(fixed.there, moved["log_alpha"])
