"""Per-prompt figures from logits at the answer position."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.tasks.metrics import best_difference
from mgnp_jax.types import Answers, Score


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
