"""Per-prompt scores from logits at the answer position."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.types import Readout


def read(readout: Readout, logits: jax.Array) -> jax.Array:
    """Equations 9 to 11: a weighted sum of a few tokens' logits or probabilities.

    Args:
      readout: [B, A] answer tokens and weights.
      logits: [B, V] at the answer position.

    Returns:
      [B] scores, in logits or in probability.
    """
    chex.assert_equal_shape_prefix([readout.tokens, logits], 1)
    values = logits if readout.kind == "logits" else jax.nn.softmax(logits)
    chosen = jnp.take_along_axis(values, readout.tokens, axis=-1)
    return (chosen * readout.weights.astype(chosen.dtype)).sum(-1)


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


def kl_over(choices: jax.Array, base_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(full model ‖ circuit) over some tokens alone, both renormalised over them.

    Args:
      choices: [B, C] int tokens.
      base_logits: [B, V] of the full model.
      logits: [B, V] of the circuit.

    Returns:
      [B] in nats.
    """
    chosen = (jnp.take_along_axis(x, choices, axis=-1) for x in (base_logits, logits))
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
