"""What changes with the step: step size, penalty and noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.training.schedules import falling, rising


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
    return rising(step, config.steps, config.warmup)


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
    return falling(step, config.steps, config.noise_floor)
