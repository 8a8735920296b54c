"""The terms of equation 7: how far a circuit is from the full model, and what it costs."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.metrics.scores import kl_divergence, kl_over, score
from mgnp_jax.passes.cached_runs import CachedRuns

Terms = dict[str, jax.Array]


def penalty(
    kept: dict[str, jax.Array], sizes: dict[str, int], prices: dict[str, float]
) -> jax.Array:
    """Σ price · open nodes over granularities.

    Args:
      kept: [] fractions by granularity, expected or counted.
      sizes: number of gates by granularity.
      prices: of one open node by granularity.

    Returns:
      [].
    """
    return functools.reduce(
        operator.add, (prices[name] * sizes[name] * part for name, part in kept.items())
    )


def score_size(runs: CachedRuns) -> jax.Array:
    """Mean size of the full model's score over all prompts, the unit of `score_gap`.

    Args:
      runs: prompts with the full model's logits, with leading axes of shards or without.

    Returns:
      [] in the score's own unit.
    """
    flat = (runs.targets.scores["score"], runs.base_logits)
    target, logits = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), flat)
    return jnp.maximum(jnp.abs(score(target, logits.astype(_fine(logits)))).mean(), 1e-6)


def mean_of(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Mean over prompts.

    Args:
      values: [B].
      weight: [B] of each; None for 1.

    Returns:
      [].
    """
    return values.mean() if weight is None else (weight * values).mean()


def mean_kl(
    config: Settings,
    runs: CachedRuns,
    base: jax.Array,
    logits: jax.Array,
    weight: jax.Array | None = None,
) -> jax.Array:
    """KL(full ‖ circuit) over the vocabulary, or over the tokens that are asked for.

    Args:
      config: `kl_over`.
      runs: the prompts.
      base: [B, V] of the full model.
      logits: [B, V] of the circuit.
      weight: [B] of each prompt; None for 1.

    Returns:
      [] mean over prompts, in nats.
    """
    if config.kl_over is None:
        return mean_of(kl_divergence(base, logits), weight)
    return mean_of(kl_over(runs.targets.kl_over[config.kl_over], base, logits), weight)


def faithfulness(
    config: Settings,
    logits: jax.Array,
    runs: CachedRuns,
    size: jax.Array,
    weight: jax.Array | None = None,
) -> Terms:
    """The two terms that say how far the circuit is from the full model.

    Args:
      config: which KL.
      logits: [B, V] of the circuit.
      runs: the prompts, with the full model's logits.
      size: [] of the full model's score, as `score_size` of the whole batch.
      weight: [B] of each prompt; None for 1.

    Returns:
      `kl`, mean in nats; `score_gap`, mean |circuit − full model| of the task's score over
      the mean size of the full model's. Both directions count: a circuit that is better
      than the model is not faithful. The ratio makes one weight serve scores in logits and
      in probability.
    """
    # At least float32 from here on, whatever the model ran in.
    base, logits = (x.astype(_fine(x)) for x in (runs.base_logits, logits))
    target = runs.targets.scores["score"]
    off = jnp.abs(score(target, logits) - score(target, base))
    kl = mean_kl(config, runs, base, logits, weight)
    return {"kl": kl, "score_gap": mean_of(off, weight) / size}


def softened_kl(
    logits: jax.Array, base: jax.Array, temperature: float, weight: jax.Array | None = None
) -> jax.Array:
    """KL(full ‖ circuit) of answers softened by a temperature, times its square.

    A few tokens have nearly all of the probability; softened, the others count as well. Meant
    against overfitting to few prompts. The square makes up for gradients that shrink as one
    over it where the temperature is large.

    Reference: distillation, arXiv 1503.02531.

    Args:
      logits: [B, V] of the circuit.
      base: [B, V] of the full model.
      temperature: divides all logits; at least 1.
      weight: [B] of each prompt; None for 1.

    Returns:
      [] mean over prompts, in nats times the temperature's square.
    """
    base, logits = (x.astype(_fine(x)) / temperature for x in (base, logits))
    return temperature**2 * mean_of(kl_divergence(base, logits), weight)


def matched(
    config: Settings,
    logits: jax.Array,
    runs: CachedRuns,
    size: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Terms]:
    """KL, softened KL, and the score's distance from the full model's, either way.

    Args:
      config: loss weights.
      logits: [B, V] of the circuit.
      runs: the prompts, with the full model's logits.
      size: [] of the full model's score.
      weight: [B] of each prompt in the loss; None for 1.

    Returns:
      The loss without the penalty, and its terms.
    """
    terms = faithfulness(config, logits, runs, size)
    paid = terms
    if weight is not None:
        paid = faithfulness(config, logits, runs, size, weight)
    loss = unfaithfulness(config, paid)
    if config.softened_weight:
        answers = (logits, runs.base_logits, config.temperature)
        terms["softened_kl"] = softened_kl(*answers)
        loss += config.kl_weight * config.softened_weight * softened_kl(*answers, weight)
    return loss, terms


def hinge(
    config: Settings,
    logits: jax.Array,
    runs: CachedRuns,
    size: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Terms]:
    """The published loss: KL, and by how much the score falls short of a margin.

    Args:
      config: loss weights and margin.
      logits: [B, V] of the circuit.
      runs: the prompts, with the full model's logits.
      size: unused: the margin is in the score's own unit.
      weight: [B] of each prompt; None for 1.

    Returns:
      The loss without the penalty, and its terms.
    """
    del size
    base, logits = (x.astype(_fine(x)) for x in (runs.base_logits, logits))
    short = jax.nn.relu(config.margin - score(runs.targets.scores["score"], logits))

    def terms(of: jax.Array | None) -> Terms:
        return {"kl": mean_kl(config, runs, base, logits, of), "hinge": mean_of(short, of)}

    paid = terms(weight)
    loss = config.kl_weight * paid["kl"] + config.score_weight * paid["hinge"]
    return loss, terms(None)


LOSSES = {"matched": matched, "hinge": hinge}
"""Losses by name, without the penalty."""


def _fine(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def unfaithfulness(config: Settings, terms: Terms) -> jax.Array:
    """What the figures that are reported say of how unfaithful a circuit is.

    Args:
      config: loss weights.
      terms: `kl`, `score_gap`.

    Returns:
      [].
    """
    return config.kl_weight * terms["kl"] + config.score_weight * terms["score_gap"]


def total(config: Settings, terms: Terms, price: jax.Array | float) -> jax.Array:
    """Equation 7 in the figures that are reported; training adds the softened term.

    Args:
      config: loss weights.
      terms: `kl`, `score_gap`, `penalty`.
      price: [] scale of all prices.

    Returns:
      [].
    """
    return unfaithfulness(config, terms) + price * terms["penalty"]
