"""Figures that a method may keep high: how well prompts are answered, or closeness to the model."""

from __future__ import annotations

from typing import Literal

import jax

from mgnp_jax.metrics.scores import in_its_pair, kl_divergence, score
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.tasks.metrics import probability_difference
from mgnp_jax.types import MgnpError

FigureName = Literal["score", "kl", "prob_diff"]
"""Names of `FIGURES`."""


def _score(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return score(runs.targets.scores["score"], logits)


def _closeness(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    return -in_its_pair(runs.targets, kl_divergence(runs.base_logits, logits))


def _probability(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    answers = runs.targets.answers
    if answers.whole:
        raise MgnpError(
            "prob_diff is of answers of one token each, and these prompts have whole answers; "
            "take score, which is of their log-probabilities, or kl"
        )
    return probability_difference(logits, answers)


FIGURES: dict[str, Figure] = {
    "score": _score,
    "kl": _closeness,
    "prob_diff": _probability,
}
"""What effects are measured on, higher is better: the task's score; less KL to the model; equation
9, the probability of the right answers less that of the wrong ones. Of pairs that are read in
several rows, the sum over these is the pair's."""
