"""Per-prompt figures from logits at the answer position."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.tasks.metrics import best_difference
from mgnp_jax.types import Answers, Score, Targets


def score(target: Score, logits: jax.Array) -> jax.Array:
    """One of the prompts' scores.

    Args:
      target: answers and metric.
      logits: [B, V] at the answer position.

    Returns:
      [B] in the metric's unit.
    """
    return target.metric(logits, target.answers)


def answered_rightly(answers: Answers, logits: jax.Array) -> jax.Array:
    """Whether the best right answer beats the best wrong one.

    Args:
      answers: [B, A].
      logits: [B, V] at the answer position.

    Returns:
      [B] bool.
    """
    return best_difference(logits, answers) > 0


def answered(answers: Answers, logits: jax.Array) -> jax.Array:
    """What decides whether prompts are answered rightly, row by row.

    Args:
      answers: [B, A].
      logits: [B, V] at the answer position.

    Returns:
      [B] bool, as `answered_rightly`; of whole answers, of which a row has one token each, [B, A]
      their log-probabilities in nats, 0 where it has none: `by_pair` sums them.
    """
    if not answers.whole:
        return answered_rightly(answers, logits)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), answers.tokens, axis=-1)
    return jnp.where(answers.signs != 0, chosen, 0)


def kl_divergence(base_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """Equation 12: KL(full model ‖ circuit) over the whole vocabulary.

    Args:
      base_logits: [B, V] of the full model.
      logits: [B, V] of the circuit.

    Returns:
      [B] in nats.
    """
    chex.assert_equal_shape([base_logits, logits])
    base = jax.nn.log_softmax(base_logits)
    return (jnp.exp(base) * (base - jax.nn.log_softmax(logits))).sum(-1)


def in_its_pair(targets: Targets, kl: jax.Array) -> jax.Array:
    """What rows add to the KL of their pairs, which is the mean over a pair's rows.

    Args:
      targets: of the rows.
      kl: [B] of each.

    Returns:
      [B]; the same where each row is a pair.
    """
    return kl if targets.of_pair is None else kl * targets.of_pair[:, 0].astype(kl.dtype)


def kl_over(tokens: jax.Array, base_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(full model ‖ circuit) over some tokens alone, both renormalised over them.

    Args:
      tokens: [B, C] int.
      base_logits: [B, V] of the full model.
      logits: [B, V] of the circuit.

    Returns:
      [B] in nats.
    """
    chosen = (jnp.take_along_axis(x, tokens, axis=-1) for x in (base_logits, logits))
    return kl_divergence(*chosen)


def same_top_token(base_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """Whether circuit and full model predict the same next token.

    Args:
      base_logits: [B, V] of the full model.
      logits: [B, V] of the circuit.

    Returns:
      [B] bool.
    """
    return base_logits.argmax(-1) == logits.argmax(-1)
