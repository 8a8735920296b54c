"""Hard-Concrete gates: samples, their chance of being open, and the binary decision.

Reference: arXiv 1712.01312; equations 6 to 8 of arXiv 2512.10903, whose log α is our
`log_alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.masks.granularities import NEURONS

BETA = 2 / 3
GAMMA, ZETA = -0.1, 1.1
THRESHOLD = BETA * math.log(-GAMMA / ZETA)
"""Equation 8: a gate is open in the circuit iff its log-alpha is above this (−1.599)."""


def stretched_sample(key: jax.Array, log_alpha: jax.Array, noise: jax.Array | float) -> jax.Array:
    """Draws the stretched concrete variable, before it is clipped to [0, 1].

    Args:
      key: [] typed key; consumed.
      log_alpha: [...] float, log-odds.
      noise: [] scale of the logistic noise; 1 is equation 6, 0 none.

    Returns:
      [...] in (γ, ζ).
    """
    chex.assert_type(log_alpha, jnp.floating)
    # An open interval: at u = 0 or 1 the logit is infinite and its gradient is not a number.
    u = jax.random.uniform(key, log_alpha.shape, log_alpha.dtype, 1e-6, 1 - 1e-6)
    logistic = jnp.log(u) - jnp.log1p(-u)
    return GAMMA + (ZETA - GAMMA) * jax.nn.sigmoid((noise * logistic + log_alpha) / BETA)


def _binary(sample: jax.Array) -> jax.Array:
    """1 where a stretched sample is above 0, else 0; without a slope."""
    return (sample > 0).astype(sample.dtype)


def soft_gates(key: jax.Array, log_alpha: jax.Array, noise: jax.Array | float = 1.0) -> jax.Array:
    """Equation 6: samples in [0, 1], differentiable in `log_alpha`.

    Args:
      key: [] typed key; consumed.
      log_alpha: [...] float.
      noise: [] scale of the logistic noise.

    Returns:
      [...] gates; exactly 0 and exactly 1 have positive probability.
    """
    return jnp.clip(stretched_sample(key, log_alpha, noise), 0.0, 1.0)


def straight_through_gates(
    key: jax.Array, log_alpha: jax.Array, noise: jax.Array | float = 1.0
) -> jax.Array:
    """Binary samples with the gradient of the soft ones.

    The value is 1[stretched sample > 0]: its probability is exactly the L0 term, and
    without noise it is exactly equation 8, so what is trained is what is extracted.

    Args:
      key: [] typed key; consumed.
      log_alpha: [...] float.
      noise: [] scale of the logistic noise.

    Returns:
      [...] gates, each 0 or 1.
    """
    sample = stretched_sample(key, log_alpha, noise)
    soft = jnp.clip(sample, 0.0, 1.0)
    return _binary(sample) + (soft - jax.lax.stop_gradient(soft))


def second_order_gates(
    key: jax.Array, log_alpha: jax.Array, noise: jax.Array | float = 1.0
) -> jax.Array:
    """Binary samples with a gradient that sees the loss on both sides of the gate.

    What a gate is worth is L(1) − L(0). A straight-through gradient is L'(m) at the value
    drawn, and at m = 1 that is near zero even for a node that everything depends on: the
    whole model is where KL is least. With p the chance that this draw is open, weighing
    L'(0) by p / 2 and L'(1) by (1 − p) / 2, both over the noise, gives in expectation
    p (1 − p) (L'(0) + L'(1)) / (2 noise), the trapezoid's estimate of dE[L] / d log α.
    Unlike the clipped soft sample, a gate that has just closed keeps its gradient and can
    open again.

    Reference: ReinMax, arXiv 2304.08612.

    Args:
      key: [] typed key; consumed.
      log_alpha: [...] float.
      noise: [] scale of the logistic noise.

    Returns:
      [...] gates, each 0 or 1; without noise exactly equation 8.
    """
    hard = _binary(stretched_sample(key, log_alpha, noise))
    # Noiseless gates do not move; the floor keeps their slope a number.
    scale = jnp.maximum(noise, 1e-3)
    chance = jax.nn.sigmoid((log_alpha - THRESHOLD) / scale)
    slope = jnp.where(hard > 0, 1 - chance, chance) / (2 * scale)
    moved = log_alpha - jax.lax.stop_gradient(log_alpha)
    return hard + jax.lax.stop_gradient(slope) * moved


def first_order_gates(
    key: jax.Array, log_alpha: jax.Array, noise: jax.Array | float = 1.0
) -> jax.Array:
    """Binary samples with the slope of an open gate's chance, whichever value is drawn.

    For a node so small that L'(0) and L'(1) hardly differ. At full noise `second_order_gates`
    then gives the same in expectation, but of a gate that is nearly always open half comes
    from the few draws in which it is closed, which weigh p / (1 − p) times as much: a noisy
    estimate. Here the slope is that at full noise, as the price's is, whatever the noise of
    the draw, which still decides whether L'(0) or L'(1) is seen: a gate drifts to the cheaper
    side, for a curved loss at another rate than that of E[L].

    Args:
      key: [] typed key; consumed.
      log_alpha: [...] float.
      noise: [] scale of the logistic noise.

    Returns:
      [...] gates, each 0 or 1; without noise exactly equation 8.
    """
    hard = _binary(stretched_sample(key, log_alpha, noise))
    chance = open_probability(log_alpha)
    return hard + (chance - jax.lax.stop_gradient(chance))


GATES = {
    "soft": soft_gates,
    "straight_through": straight_through_gates,
    "second_order": second_order_gates,
    "first_order": first_order_gates,
}
"""Ways to draw gates in training."""


def draw_of(kind: str, granularity: str) -> Callable[..., jax.Array]:
    """How the gates of a granularity are drawn in training.

    Args:
      kind: one of `GATES` for all; or `mixed`: neurons, in each of which the loss is taken to be
        nearly linear, to the first order, all others to the second.
      granularity: its name.

    Returns:
      The function that draws them.
    """
    if kind == "mixed":
        kind = "first_order" if granularity in NEURONS else "second_order"
    return GATES[kind]


def open_probability(log_alpha: jax.Array) -> jax.Array:
    """The L0 term of equation 7: chance that a sample is not zero.

    Args:
      log_alpha: [...] float.

    Returns:
      [...] probabilities, σ(log α − β log(−γ/ζ)).
    """
    return jax.nn.sigmoid(log_alpha - THRESHOLD)


def is_open(log_alpha: jax.Array) -> jax.Array:
    """Equation 8.

    Args:
      log_alpha: [...] float.

    Returns:
      [...] bool.
    """
    return log_alpha > THRESHOLD
