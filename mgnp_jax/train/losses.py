"""Equation 7: faithfulness plus the price of what stays open, term by term."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.masks.hard_concrete import GATES, open_probability
from mgnp_jax.metrics.scores import kl_divergence, read
from mgnp_jax.metrics.streams import Streams, masked_logits
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.train import schedule
from mgnp_jax.train.config import DiscoverConfig, Penalties
from mgnp_jax.types import Masks, Params


def sample_masks(key: jax.Array, log_alpha: Masks, gates: str, noise: jax.Array | float) -> Masks:
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


def faithfulness(
    logits: jax.Array, streams: Streams, lift: jax.Array | float = 0.0
) -> dict[str, jax.Array]:
    """The two terms that say how far the circuit is from the full model.

    Args:
      logits: [B, V] of the circuit.
      streams: the prompts, with the full model's logits.
      lift: [] by what part of itself the score that is aimed at exceeds the full model's.

    Returns:
      `kl`, mean in nats; `score_gap`, mean |circuit − full model| of the task's score over
      the mean size of the full model's. Both directions count: a circuit that is better
      than the model is not faithful. The ratio makes one weight serve scores in logits and
      in probability.
    """
    readout = streams.batch.readouts["score"]
    base = read(readout, streams.base_logits)
    size = jnp.maximum(jnp.abs(base).mean(), 1e-6)
    gap = jnp.abs(read(readout, logits) - (1 + lift) * base).mean() / size
    return {"kl": kl_divergence(streams.base_logits, logits).mean(), "score_gap": gap}


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


def objective(
    log_alpha: Masks,
    key: jax.Array,
    config: DiscoverConfig,
    model_config: ModelConfig,
    params: Params,
    streams: Streams,
    step: jax.Array,
    lift: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    """Equation 7 for one draw of the gates.

    Args:
      log_alpha: float arrays by granularity; first, because it is what is differentiated.
      key: [] typed key; consumed.
      config: loss weights and schedules.
      model_config: the model's shape.
      params: the frozen weights.
      streams: B prompts with their plain passes.
      step: [] int, for the schedules.
      lift: [] how far above the full model's score to aim, see `faithfulness`.

    Returns:
      The loss; it and its terms by name, with the expected kept shares under `kept`.
    """
    masks = sample_masks(key, log_alpha, config.gates, schedule.noise_scale(config, step))
    shares = kept_shares(log_alpha)
    terms = faithfulness(masked_logits(model_config, params, masks, streams), streams, lift)
    terms["penalty"] = penalty(shares, config.penalties)
    loss = total(config, terms, schedule.penalty_scale(config, step))
    return loss, {"loss": loss, **terms, "kept": shares}
