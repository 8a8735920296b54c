"""Equation 7: faithfulness plus the price of what stays open, term by term."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.masks.hard_concrete import draw_of, open_probability
from mgnp_jax.metrics.scores import kl_divergence, read
from mgnp_jax.metrics.streams import Streams, masked_logits
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.train import schedule
from mgnp_jax.train.compaction import Compaction
from mgnp_jax.train.config import DiscoverConfig, Penalties
from mgnp_jax.types import Masks, Params


def sample_masks(
    key: jax.Array,
    log_alpha: Masks,
    config: DiscoverConfig,
    noise: jax.Array | float,
    prompts: int,
) -> Masks:
    """Draws every gate once for each prompt.

    One draw for a whole batch would leave its gradient with the noise of a single draw
    however large the batch; fine gates, whose slopes are small, then never close.

    Args:
      key: [] typed key; consumed.
      log_alpha: float arrays by granularity, the layer axis first.
      config: how gates are drawn, and which; the others are open.
      noise: [] scale of the logistic noise.
      prompts: B.

    Returns:
      Gates [L, B, …] by granularity; [B] for the embedding.
    """
    keys = jax.random.split(key, len(log_alpha))

    def each(key: jax.Array, name: str) -> jax.Array:
        leaf = log_alpha[name]
        shape = (*leaf.shape[:1], prompts, *leaf.shape[1:])
        whole = jnp.broadcast_to(jnp.expand_dims(leaf, min(leaf.ndim, 1)), shape)
        if name not in config.trained:
            return jnp.ones_like(whole)
        return draw_of(config.gates, name)(key, whole, noise)

    return {name: each(k, name) for k, name in zip(keys, sorted(log_alpha))}


def kept_shares(log_alpha: Masks, trained: Sequence[str]) -> dict[str, jax.Array]:
    """Expected share of open gates of each granularity (appendix C's normalised L0).

    Args:
      log_alpha: float arrays by granularity.
      trained: names of the gates that are drawn; the others are open.

    Returns:
      [] fractions by granularity.
    """
    return {
        name: open_probability(leaf).mean() if name in trained else jnp.ones(())
        for name, leaf in log_alpha.items()
    }


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
    return functools.reduce(
        operator.add, (prices[name] * sizes[name] * share for name, share in shares.items())
    )


def score_size(streams: Streams) -> jax.Array:
    """Mean size of the full model's score over all prompts, the unit of `score_gap`.

    Args:
      streams: prompts with the full model's logits, with leading axes of shares or without.

    Returns:
      [] in the score's own unit.
    """
    flat = (streams.readouts["score"], streams.base_logits)
    readout, logits = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), flat)
    return jnp.maximum(jnp.abs(read(readout, logits.astype(_fine(logits)))).mean(), 1e-6)


def faithfulness(
    logits: jax.Array, streams: Streams, size: jax.Array, lift: jax.Array | float = 0.0
) -> dict[str, jax.Array]:
    """The two terms that say how far the circuit is from the full model.

    Args:
      logits: [B, V] of the circuit.
      streams: the prompts, with the full model's logits.
      size: [] of the full model's score, as `score_size` of the whole batch.
      lift: [] by what part of itself the score that is aimed at exceeds the full model's.

    Returns:
      `kl`, mean in nats; `score_gap`, mean |circuit − full model| of the task's score over
      the mean size of the full model's. Both directions count: a circuit that is better
      than the model is not faithful. The ratio makes one weight serve scores in logits and
      in probability.
    """
    # At least float32 from here on, whatever the model ran in.
    base, logits = (x.astype(_fine(x)) for x in (streams.base_logits, logits))
    readout = streams.readouts["score"]
    gap = jnp.abs(read(readout, logits) - (1 + lift) * read(readout, base)).mean() / size
    return {"kl": kl_divergence(base, logits).mean(), "score_gap": gap}


def softened_kl(logits: jax.Array, base: jax.Array, temperature: float) -> jax.Array:
    """KL(full ‖ circuit) of answers softened by a temperature, times its square.

    A few tokens have nearly all of the probability; softened, the others count as well. Meant
    against overfitting to few prompts. The square makes up for gradients that shrink as one
    over it where the temperature is large.

    Reference: distillation, arXiv 1503.02531.

    Args:
      logits: [B, V] of the circuit.
      base: [B, V] of the full model.
      temperature: divides all logits; at least 1.

    Returns:
      [] mean over prompts, in nats times the temperature's square.
    """
    base, logits = (x.astype(_fine(x)) / temperature for x in (base, logits))
    return temperature**2 * kl_divergence(base, logits).mean()


def _fine(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def unfaithfulness(config: DiscoverConfig, terms: dict[str, jax.Array]) -> jax.Array:
    """What the figures that are reported say of how unfaithful a circuit is.

    Args:
      config: loss weights.
      terms: `kl`, `score_gap`.

    Returns:
      [].
    """
    return config.kl_weight * terms["kl"] + config.score_weight * terms["score_gap"]


def total(
    config: DiscoverConfig, terms: dict[str, jax.Array], price: jax.Array | float
) -> jax.Array:
    """Equation 7 in the figures that are reported; training adds the softened term.

    Args:
      config: loss weights.
      terms: `kl`, `score_gap`, `penalty`.
      price: [] scale of all prices.

    Returns:
      [].
    """
    return unfaithfulness(config, terms) + price * terms["penalty"]


def objective(
    log_alpha: Masks,
    key: jax.Array,
    config: DiscoverConfig,
    model_config: ModelConfig,
    params: Params,
    streams: Streams,
    step: jax.Array,
    aim: schedule.Aim,
    compaction: Compaction | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """Equation 7 for one draw of the gates a prompt, with softened answers beside the others.

    Args:
      log_alpha: float arrays by granularity; first, because it is what is differentiated.
      key: [] typed key; consumed.
      config: loss weights and schedules.
      model_config: the model's shape.
      params: the frozen weights.
      streams: B prompts with their plain passes.
      step: [] int, for the schedules.
      aim: the score and the price as validation has them.
      compaction: what is left of the model; None for all of it.

    Returns:
      The loss; it and its terms by name, with the expected kept shares under `kept`.
    """
    noise = schedule.noise_scale(config, step)
    count = math.prod(streams.base_logits.shape[:-1])
    parts = [log_alpha] if compaction is None else compaction.masks(log_alpha)
    keys = [key] if compaction is None else jax.random.split(key, len(parts))
    masks = [sample_masks(k, part, config, noise, count) for k, part in zip(keys, parts)]
    size = score_size(streams)

    def unfaithful(masks: Any, streams: Streams) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, streams = _run(config, model_config, params, masks, streams, compaction)
        terms = faithfulness(logits, streams, size, aim.lift)
        loss = unfaithfulness(config, terms)
        if config.softened_weight:
            softened = softened_kl(logits, streams.base_logits, config.temperature)
            terms["softened_kl"] = softened
            loss += config.kl_weight * config.softened_weight * softened
        return loss, terms

    if config.accumulate > 1:
        loss, terms = _one_after_another(unfaithful, config.accumulate, masks, streams)
    else:
        loss, terms = unfaithful(masks, streams)
    shares = kept_shares(log_alpha, config.trained)
    sizes = {name: leaf.size for name, leaf in log_alpha.items()}
    terms["penalty"] = penalty(shares, sizes, config.penalties)
    loss += schedule.penalty_scale(config, step) * aim.price * terms["penalty"]
    return loss, {"loss": loss, **terms, "kept": shares}


def _run(
    config: DiscoverConfig,
    model_config: ModelConfig,
    params: Params,
    masks: list[Masks],
    streams: Streams,
    compaction: Compaction | None,
) -> tuple[jax.Array, Streams]:
    """Logits [B, V] of the masked pass, and the streams, both without an axis of devices."""
    run = functools.partial(
        masked_logits,
        model_config,
        params,
        segments=None if compaction is None else compaction.segments,
        remat=config.remat,
    )
    if config.devices == 1:
        return run(masks=masks, streams=streams), streams
    # Each device its own prompts' gates; then one batch again, as on a single device.
    each, axes = _split(masks, config.devices)
    logits = jax.vmap(lambda m, s: run(masks=m, streams=s), (axes, 0))(each, streams)
    whole = (logits, streams.base_logits, streams.readouts)
    logits, base, readouts = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), whole)
    return logits, streams.replace(base_logits=base, readouts=readouts)  # type: ignore[attr-defined]


def _split(masks: list[Masks], count: int) -> tuple[list[Masks], Any]:
    """Gates [L, B, …] → [L, count, B / count, …], and where the new axis is in each leaf."""
    axes = jax.tree.map(lambda leaf: min(leaf.ndim - 1, 1), masks)
    each = jax.tree.map(
        # Said in numbers: a layer may have no head left, and 0 of anything has any size.
        lambda leaf, axis: leaf.reshape(
            *leaf.shape[:axis], count, leaf.shape[axis] // count, *leaf.shape[axis + 1 :]
        ),
        masks,
        axes,
    )
    return each, axes


def _one_after_another(
    unfaithful: Callable[..., Any], count: int, masks: list[Masks], streams: Streams
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Means over the parts of a batch, of which one at a time is in memory.

    Each part's gradient in the gates is taken when it runs. What is returned is linear in
    the gates with just that slope, so nothing of a part need be kept for a backward pass.
    """
    each, axes = _split(masks, count)
    first = jax.tree.map(jnp.moveaxis, each, axes, jax.tree.map(lambda _: 0, axes))
    gradient = jax.value_and_grad(unfaithful, has_aux=True)
    (losses, terms), slopes = jax.lax.map(
        lambda part: gradient(*part), (jax.lax.stop_gradient(first), streams)
    )
    moved = jax.tree.map(
        lambda slope, gate: (slope * (gate - jax.lax.stop_gradient(gate))).sum(), slopes, first
    )
    loss = losses.mean() + sum(jax.tree.leaves(moved)) / count
    return loss, jax.tree.map(lambda term: term.mean(), terms)
