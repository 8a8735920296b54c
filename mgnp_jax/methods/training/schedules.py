"""What changes with the step wherever gates with prices are trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rising(step: jax.Array, steps: int, warmup: float) -> jax.Array:
    """Linear from 0 to 1 over the warm-up, then 1.

    Args:
      step: [] int, from 0.
      steps: of the run.
      warmup: share of them.

    Returns:
      [] float32.
    """
    return jnp.minimum(1.0, step.astype(jnp.float32) / max(1.0, warmup * steps))


def falling(step: jax.Array, steps: int, floor: float) -> jax.Array:
    """Linear from 1 at a rate that would end at 0, not below a floor.

    Args:
      step: [] int, from 0.
      steps: of the run.
      floor: least value.

    Returns:
      [] float32.
    """
    return jnp.maximum(jnp.float32(floor), 1.0 - step.astype(jnp.float32) / steps)
