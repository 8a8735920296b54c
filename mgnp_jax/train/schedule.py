"""What changes with the step: step size, penalty, noise, and which prompts are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.types import DATA_STREAM, stream_key


@struct.dataclass
class Aim:
    """What validation corrects as training goes.

    Attributes:
      lift: [] float32, by what part of itself the score aimed at exceeds the full model's.
      price: [] float32, scale of all prices.
    """

    lift: jax.Array
    price: jax.Array


def first_aim(config: DiscoverConfig) -> Aim:
    """Where it starts: the full model's own score, prices as they are set.

    Args:
      config: their scale.
    """
    return Aim(lift=jnp.zeros((), jnp.float32), price=jnp.asarray(config.penalty, jnp.float32))


def optimiser(config: DiscoverConfig) -> optax.GradientTransformation:
    """Adam with a cosine step size that ends at a twentieth.

    No weight decay, which would pull gates towards 0.5.

    Args:
      config: step size and steps.
    """
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.05))


def penalty_scale(config: DiscoverConfig, step: jax.Array) -> jax.Array:
    """Share of the penalty that counts at a step: linear from 0 to 1 over the warm-up.

    Args:
      config: warm-up and steps.
      step: [] int.

    Returns:
      [] float32.
    """
    over = max(1.0, config.warmup * config.steps)
    return jnp.minimum(1.0, step.astype(jnp.float32) / over)


def noise_scale(config: DiscoverConfig, step: jax.Array) -> jax.Array:
    """Scale of the gates' noise at a step: linear from 1 towards 0, not below the floor.

    Soft gates keep their noise: without it they stop at values between 0 and 1.

    Args:
      config: noise_floor, gates and steps.
      step: [] int.

    Returns:
      [] float32.
    """
    if config.gates == "soft":
        return jnp.ones((), jnp.float32)
    falling = 1.0 - step.astype(jnp.float32) / config.steps
    return jnp.maximum(jnp.float32(config.noise_floor), falling)


def next_lift(lift: jax.Array, score: float, base_score: float) -> jax.Array:
    """Corrects the score aimed at by what the last validation missed.

    A circuit scores lower on prompts that did not choose its gates. How much lower is one
    number, and the validation prompts tell it.

    Args:
      lift: [] float32, so far.
      score: of the binary circuit on the validation prompts.
      base_score: of the full model.

    Returns:
      [] float32 in [−0.3, 0.3].
    """
    missed = (base_score - score) / max(abs(base_score), 1e-6)
    return jnp.asarray(np.clip(np.asarray(lift) + np.float32(0.5 * missed), -0.3, 0.3))


def batch_order(root: jax.Array, tokens: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """Which prompts each step sees: one shuffle after another, cut into batches.

    Prompts are dealt like cards, longest last, so that all batches have nearly the same
    number of tokens and one array size serves them without much filling.

    Args:
      root: [] typed key of the run; folded, not consumed.
      tokens: [N] of each prompt.
      batch_size: B.
      steps: number of batches.

    Returns:
      [steps, B] int32 rows; every prompt once an epoch.
    """
    prompts = len(tokens)
    hands = -(-prompts // batch_size)
    shuffles = []
    for epoch in range(-(-steps * batch_size // prompts)):
        key = stream_key(root, DATA_STREAM, epoch)
        draws = np.asarray(jax.random.uniform(key, (2, prompts)))
        ranked = np.lexsort((draws[0], tokens))
        dealt = ranked[np.lexsort((draws[1], np.arange(prompts) // hands))]
        shuffles += [dealt[hand::hands] for hand in range(hands)]
    rows = np.concatenate(shuffles)[: steps * batch_size]
    return rows.reshape(steps, batch_size).astype(np.int32)
