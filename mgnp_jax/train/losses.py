"""Equation 7: faithfulness plus the price of what stays open, term by term."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.masks.hard_concrete import GATES, open_probability
from mgnp_jax.metrics.scores import kl_divergence, read
from mgnp_jax.metrics.streams import Streams, masked_logits
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.train import schedule
from mgnp_jax.train.compaction import Compaction
from mgnp_jax.train.config import DiscoverConfig, Penalties
from mgnp_jax.types import Masks, Params


def sample_masks(
    key: jax.Array, log_alpha: Masks, gates: str, noise: jax.Array | float, prompts: int
) -> Masks:
    """Draws every gate once for each prompt.

    One draw for a whole batch would leave its gradient with the noise of a single draw
    however large the batch; fine gates, whose slopes are small, then never close.

    Args:
      key: [] typed key; consumed.
      log_alpha: float arrays by granularity, the layer axis first.
      gates: key of `GATES`.
      noise: [] scale of the logistic noise.
      prompts: B.

    Returns:
      Gates [L, B, …] by granularity; [B] for the embedding.
    """
    keys = jax.random.split(key, len(log_alpha))
    draw = GATES[gates]

    def each(leaf: jax.Array) -> jax.Array:
        shape = (*leaf.shape[:1], prompts, *leaf.shape[1:])
        return jnp.broadcast_to(jnp.expand_dims(leaf, min(leaf.ndim, 1)), shape)

    return {n: draw(k, each(log_alpha[n]), noise) for k, n in zip(keys, sorted(log_alpha))}


def kept_shares(log_alpha: Masks) -> dict[str, jax.Array]:
    """Expected share of open gates of each granularity (appendix C's normalised L0).

    Args:
      log_alpha: float arrays by granularity.

    Returns:
      [] fractions by granularity.
    """
    return {name: open_probability(leaf).mean() for name, leaf in log_alpha.items()}


def penalty(shares: dict[str, jax.Array], sizes: dict[str, int], penalties: Penalties) -> jax.Array:
    """Σ price · open nodes over granularities.

    Args:
      shares: [] fractions by granularity, expected or counted.
      sizes: number of gates by granularity.
      penalties: price of one open node by granularity.

    Returns:
      [].
    """
    prices = dataclasses.asdict(penalties)
    costs = (prices[name] * sizes[name] * share for name, share in shares.items())
    return sum(costs, jnp.zeros(()))


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
    readout = streams.readouts["score"]
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
    compaction: Compaction | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """Equation 7 for one draw of the gates a prompt.

    Args:
      log_alpha: float arrays by granularity; first, because it is what is differentiated.
      key: [] typed key; consumed.
      config: loss weights and schedules.
      model_config: the model's shape.
      params: the frozen weights.
      streams: B prompts with their plain passes.
      step: [] int, for the schedules.
      lift: [] how far above the full model's score to aim, see `faithfulness`.
      compaction: what is left of the model; None for all of it.

    Returns:
      The loss; it and its terms by name, with the expected kept shares under `kept`.
    """
    noise = schedule.noise_scale(config, step)
    *shards, prompts, _ = streams.base_logits.shape
    count = math.prod(shards)
    parts = [log_alpha] if compaction is None else compaction.masks(log_alpha)
    keys = [key] if compaction is None else jax.random.split(key, len(parts))
    masks = [
        sample_masks(k, part, config.gates, noise, count * prompts) for k, part in zip(keys, parts)
    ]
    run = functools.partial(
        masked_logits,
        model_config,
        params,
        segments=None if compaction is None else compaction.segments,
        remat=config.remat,
    )
    if shards:
        # Each device its own prompts' gates; then one batch again, as on a single device.
        axes = jax.tree.map(lambda leaf: min(leaf.ndim - 1, 1), masks)
        each = jax.tree.map(
            lambda leaf, axis: leaf.reshape(
                *leaf.shape[:axis], count, prompts, *leaf.shape[axis + 1 :]
            ),
            masks,
            axes,
        )
        logits = jax.vmap(lambda m, s: run(masks=m, streams=s), (axes, 0))(each, streams)
        logits = logits.reshape(count * prompts, -1)
        whole = (streams.base_logits, streams.readouts)
        merged = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), whole)
        streams = streams.replace(base_logits=merged[0], readouts=merged[1])  # type: ignore[attr-defined]
    else:
        logits = run(masks=masks, streams=streams)
    shares = kept_shares(log_alpha)
    # At least float32 from here on, whatever the model ran in.
    fine = jnp.promote_types(logits.dtype, jnp.float32)
    streams = streams.replace(base_logits=streams.base_logits.astype(fine))  # type: ignore[attr-defined]
    terms = faithfulness(logits.astype(fine), streams, lift)
    sizes = {name: leaf.size for name, leaf in log_alpha.items()}
    terms["penalty"] = penalty(shares, sizes, config.penalties)
    loss = total(config, terms, schedule.penalty_scale(config, step))
    return loss, {"loss": loss, **terms, "kept": shares}
