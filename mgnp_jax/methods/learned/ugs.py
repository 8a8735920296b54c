"""Uniform gradient sampling: chances of edges, learned from slopes between closed and open."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from mgnp_jax.methods.learned.config import Fixed, Run
from mgnp_jax.methods.learned.edge_gates import (
    OfEdges,
    count_of,
    each_edge,
    key_each,
    mean_over,
    ranked_edges,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.budget import step_bytes
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.types import Masks, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class UgsConfig(OfEdges):
    """Chances of edges by uniform gradient sampling; the likeliest are kept.

    An edge of chance p = σ(a) is open, closed, or with chance w = p (1 − p) a number drawn evenly
    from (0, 1), so that p is its mean. The slope of the loss in p is taken as that in those
    numbers. A price on every edge's chance, and no target, decides how many are left likely.
    Draws are shared by the prompts of a step.
    """

    name: ClassVar[str] = "ugs"

    batch_size: int = 10
    """Prompt pairs a step."""
    learning_rate: float = 0.1
    """Adam's step size."""
    draws: int = 12
    """Draws of all edges a step."""
    at_once: int = 4
    """Of which so many run together, which takes as many times the memory."""
    penalty: float = 2e-4
    """Price of an open edge, in the unit of the loss."""
    initial: float = 1.0
    """Log-odds of every edge before the first step."""
    clip_norm: float = 5.0
    """Longest gradient, all edges together; longer ones are scaled down to it."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        super().__post_init__()
        positive = ("draws", "at_once", "clip_norm")
        self._check_within(positive, 0, math.inf, "must be a number greater than 0")
        self._check_within(("initial",), -math.inf, math.inf, "must be a number")
        if not 0 <= self.penalty < math.inf:
            raise MgnpError(f"penalty must be a number from 0 on, got {self.penalty}")

    def more_bytes(self, model_config: ModelConfig, sizes: Sizes) -> int:
        """All of it as many times as draws run together, see `Learned.more_bytes`."""
        others = (min(self.at_once, self.draws) - 1) * step_bytes(
            model_config, sizes, self.batch_size
        )
        return others + min(self.at_once, self.draws) * super().more_bytes(model_config, sizes)

    def first(self, key: jax.Array, model_config: ModelConfig) -> Masks:
        """Log-odds, see `Learned.first`."""
        return each_edge(key, model_config, lambda _, shape: jnp.full(shape, self.initial))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam on gradients that are not too long."""
        adam = optax.adam(self.learning_rate, eps=self.adam_eps)
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adam)

    def loss(
        self, moved: Masks, fixed: Fixed, key: jax.Array, step: jax.Array, run: Run
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean badness of the draws, and the price of what is likely."""
        del step
        keys = key_each(key, moved)
        drawn = {n: partly_open(keys[n], leaf, self.draws) for n, leaf in moved.items()}
        drawn = {name: leaf * fixed.there[name][None] for name, leaf in drawn.items()}
        # Of each draw only its result is kept, and the draw run again for its gradient.
        bad = jax.lax.map(jax.checkpoint(run), drawn, batch_size=min(self.at_once, self.draws))
        chance = {name: jax.nn.sigmoid(leaf) for name, leaf in moved.items()}
        likely = mean_over(fixed.there, chance)
        loss = bad.mean() + self.penalty * likely * count_of(fixed.there)
        return loss, {**self.told(bad.mean()), "edges_open": likely * fixed.before}

    def scores(self, model_config: ModelConfig, moved: Masks, fixed: Fixed) -> Masks:
        """Log-odds, see `Learned.scores`."""
        return ranked_edges(fixed.there, moved)


def partly_open(key: jax.Array, log_odds: jax.Array, draws: int) -> jax.Array:
    """Gates that are 0, 1, or with chance p (1 − p) evenly between, and p on average.

    Args:
      key: [] typed key; consumed.
      log_odds: [...] float.
      draws: how many.

    Returns:
      [draws, ...] gates; the slope of one in p is that of its number, 1 / w between and else 0.
    """
    p = jax.nn.sigmoid(log_odds)
    # Of chances that round to 0 or 1, none is drawn between.
    window = jax.lax.stop_gradient(jnp.maximum(p * (1 - p), 1e-12))
    u = jax.random.uniform(key, (draws, *log_odds.shape), log_odds.dtype)
    return jnp.clip((p[None] - u) / window[None] + 0.5, 0.0, 1.0)
