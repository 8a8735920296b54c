"""What changes with the step: step size, penalty, noise, and which prompts are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.types import DATA_STREAM, stream_key


def optimiser(config: Settings) -> optax.GradientTransformation:
    """Adam with a cosine step size; with weight decay and clipping where they are set.

    Args:
      config: step size and steps.
    """
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=config.final_rate)
    b1, b2, eps = config.adam_b1, config.adam_b2, config.adam_eps
    adam = optax.adam(rate, b1=b1, b2=b2, eps=eps)
    if config.weight_decay:
        adam = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=config.weight_decay)
    if config.clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def penalty_scale(config: Settings, step: jax.Array) -> jax.Array:
    """Share of the penalty that counts at a step: linear from 0 to 1 over the warm-up.

    Args:
      config: warm-up and steps.
      step: [] int.

    Returns:
      [] float32.
    """
    over = max(1.0, config.warmup * config.steps)
    return jnp.minimum(1.0, step.astype(jnp.float32) / over)


def noise_scale(config: Settings, step: jax.Array) -> jax.Array:
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
