"""Figures that a method may keep high: the task's own score, or closeness to the full model."""

from __future__ import annotations

import jax

from mgnp_jax.metrics.scores import kl_divergence, score
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.cached_runs import CachedRuns


def _score(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return score(runs.targets.scores["score"], logits)


def _closeness(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return -kl_divergence(runs.base_logits, logits)


FIGURES: dict[str, Figure] = {"score": _score, "kl": _closeness}
"""What effects are measured on, higher is better: the task's score, or less KL to the model."""
