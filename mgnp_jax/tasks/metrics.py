"""Answer metrics: how well prompts are answered, from the logits at the answer position.

Each is a function (logits [B, V], answers) → [B]. One of your own goes to a `Task`, to
`from_pairs`, or into `METRICS`; it should be differentiable if training is to match it.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.types import AnswerMetric, Answers, MgnpError


def _chosen(values: jax.Array, answers: Answers) -> tuple[jax.Array, jax.Array]:
    """Values [B, V] at the answers' tokens, and the answers' signs, [B, A] each."""
    chex.assert_equal_shape_prefix([answers.tokens, values], 1)
    chosen = jnp.take_along_axis(values, answers.tokens, axis=-1)
    return chosen, answers.signs.astype(chosen.dtype)


def logit_difference(logits: jax.Array, answers: Answers) -> jax.Array:
    """Equations 10 and 11: mean logit of the right answers − mean logit of the wrong ones.

    Args:
      logits: [B, V] at the answer position.
      answers: [B, A].

    Returns:
      [B] in logits.
    """
    chosen, signs = _chosen(logits, answers)
    right = jnp.maximum((signs > 0).sum(-1, keepdims=True), 1)
    wrong = jnp.maximum((signs < 0).sum(-1, keepdims=True), 1)
    return (chosen * (signs / jnp.where(signs > 0, right, wrong))).sum(-1)


def probability_difference(logits: jax.Array, answers: Answers) -> jax.Array:
    """Equation 9: Σ P(right answers) − Σ P(wrong answers), of the whole vocabulary.

    Args:
      logits: [B, V] at the answer position.
      answers: [B, A].

    Returns:
      [B] in probability.
    """
    chosen, signs = _chosen(jax.nn.softmax(logits), answers)
    return (chosen * signs).sum(-1)


def best_difference(logits: jax.Array, answers: Answers) -> jax.Array:
    """Logit of the best right answer − logit of the best wrong one; above 0 exactly if accurate.

    Args:
      logits: [B, V] at the answer position.
      answers: [B, A].

    Returns:
      [B] in logits.
    """
    chosen, signs = _chosen(logits, answers)
    best = [jnp.where(of, chosen, -jnp.inf).max(-1) for of in (signs > 0, signs < 0)]
    return best[0] - best[1]


def log_probability(logits: jax.Array, answers: Answers) -> jax.Array:
    """Σ weight · log P(token): what a row adds to the score of whole answers.

    With the rows of a pair summed, and weights of 1 over the number of right answers and −1 over
    that of wrong ones, it is the mean over right answers of Σ_t log P(a_t | prompt, a_<t) less the
    same of wrong ones. Answers of another length are taken as they are: a longer one has more
    terms. Of answers of one token it is `logit_difference`.

    Args:
      logits: [B, V] at the answer position.
      answers: [B, A]; signs are weights.

    Returns:
      [B] in nats.
    """
    chosen, weights = _chosen(jax.nn.log_softmax(logits), answers)
    return (chosen * weights).sum(-1)


METRICS: dict[str, AnswerMetric] = {
    "logit_difference": logit_difference,
    "probability_difference": probability_difference,
    "best_difference": best_difference,
}
"""Answer metrics by name."""


def metric_named(metric: str | AnswerMetric) -> AnswerMetric:
    """Looks up a metric.

    Args:
      metric: its name, or the function itself.

    Raises:
      MgnpError: for an unknown name.
    """
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise MgnpError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]
