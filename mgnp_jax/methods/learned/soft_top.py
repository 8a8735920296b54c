"""Soft masks of a given size: the sigmoid of scores less the threshold that gives the size."""

from __future__ import annotations

import jax
import jax.numpy as jnp

HALVINGS = 30
"""Of the interval in which the threshold lies."""


def soft_top(
    scores: jax.Array, share: jax.Array, temperature: float, there: jax.Array | None = None
) -> jax.Array:
    """σ((s − τ) / T), with τ such that it is `share` on average.

    τ moves with the scores, as its derivative by the implicit function theorem says: raising one
    score lowers all the other gates.

    Args:
      scores: [...] float.
      share: [] in (0, 1).
      temperature: T > 0.
      there: [...] bool, what counts; None for all. The others' gates are 0.

    Returns:
      [...] gates in (0, 1).
    """
    counts = jnp.ones_like(scores) if there is None else there.astype(scores.dtype)
    total = counts.sum()

    def gates(scores: jax.Array, threshold: jax.Array) -> jax.Array:
        return counts * jax.nn.sigmoid((scores - threshold) / temperature)

    still = jax.lax.stop_gradient(scores)
    # At both bounds all gates, even those of the least or the highest score, are beyond it.
    reach = temperature * jnp.abs(jnp.log(share) - jnp.log1p(-share))
    low, high = still.min() - reach, still.max() + reach

    def halved(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        larger = gates(still, middle).sum() > share * total
        return jnp.where(larger, middle, low), jnp.where(larger, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halved, (low, high))
    threshold = (low + high) / 2
    # One step of Newton's method, differentiated: it gives the threshold its slope.
    at = gates(still, threshold)
    slope = jnp.maximum((at * (1 - at) * (counts > 0)).sum() / temperature, 1e-12)
    excess = gates(scores, threshold).sum() - share * total
    return gates(scores, threshold + excess / slope)
