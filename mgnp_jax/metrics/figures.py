"""Figures that a method may keep high: the task's own score, or closeness to the full model."""

from __future__ import annotations

import jax

from mgnp_jax.metrics.scores import in_its_pair, kl_divergence, score
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.types import MgnpError


def _score(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return score(runs.targets.scores["score"], logits)


def _closeness(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return -in_its_pair(runs.targets, kl_divergence(runs.base_logits, logits))


FIGURES: dict[str, Figure] = {"score": _score, "kl": _closeness}
"""What effects are measured on, higher is better: the task's score, or less KL to the model. Of
pairs that are read in several rows, the sum over these is the pair's."""


def check_figure(setting: str, name: str) -> None:
    """Refuses a figure that is not known.

    Args:
      setting: what names it.
      name: what it names.

    Raises:
      MgnpError: naming both and those that are known.
    """
    if name not in FIGURES:
        raise MgnpError(f"{setting} must be one of {', '.join(FIGURES)}, got {name!r}")
