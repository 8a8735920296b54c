"""Equation 7: faithfulness plus the price of what stays open, term by term."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mgnp_jax.masks.hard_concrete import GATES, open_probability
from mgnp_jax.metrics.scores import kl_divergence, read
from mgnp_jax.metrics.streams import Streams
from mgnp_jax.train.config import DiscoverConfig, Penalties
from mgnp_jax.types import Masks


def sample_masks(
    key: jax.Array, log_alpha: Masks, gates: str, noise: jax.Array | float
) -> Masks:
    """Draws every gate once.

    Args:
      key: [] typed key; consumed.
      log_alpha: float arrays by granularity.
      gates: key of `GATES`.
      noise: [] scale of the logistic noise.

    Returns:
      Gates by granularity.
    """
    keys = jax.random.split(key, len(log_alpha))
    draw = GATES[gates]
    return {name: draw(k, log_alpha[name], noise) for k, name in zip(keys, sorted(log_alpha))}


def kept_shares(log_alpha: Masks) -> dict[str, jax.Array]:
    """Expected share of open gates of each granularity (appendix C's normalised L0).

    Args:
      log_alpha: float arrays by granularity.

    Returns:
      [] fractions by granularity.
    """
    return {name: open_probability(leaf).mean() for name, leaf in log_alpha.items()}


def penalty(shares: dict[str, jax.Array], penalties: Penalties) -> jax.Array:
    """Σ λ · share over granularities.

    Args:
      shares: [] fractions by granularity, expected or counted.
      penalties: λ by granularity.

    Returns:
      [].
    """
    weights = dataclasses.asdict(penalties)
    return sum((weights[name] * share for name, share in shares.items()), jnp.zeros(()))


def faithfulness(logits: jax.Array, streams: Streams) -> dict[str, jax.Array]:
    """The two terms that say how far the circuit is from the full model.

    Args:
      logits: [B, V] of the circuit.
      streams: the prompts, with the full model's logits.

    Returns:
      `kl`, mean in nats; `score_gap`, mean |circuit − full model| of the task's score. Both
      directions count: a circuit that is better than the model is not faithful.
    """
    readout = streams.batch.readouts["score"]
    gap = jnp.abs(read(readout, logits) - read(readout, streams.base_logits))
    return {"kl": kl_divergence(streams.base_logits, logits).mean(), "score_gap": gap.mean()}


def total(config: DiscoverConfig, terms: dict[str, jax.Array], scale: jax.Array) -> jax.Array:
    """The objective.

    Args:
      config: loss weights.
      terms: `kl`, `score_gap`, `penalty`.
      scale: [] in [0, 1], how far the penalty is warmed up.

    Returns:
      [].
    """
    return (
        config.kl_weight * terms["kl"]
        + config.score_weight * terms["score_gap"]
        + scale * config.penalty * terms["penalty"]
    )
