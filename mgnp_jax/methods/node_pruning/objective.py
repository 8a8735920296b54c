"""Equation 7 for one draw of the gates: what a step differentiates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.methods.node_pruning import losses, schedule
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.gates import expected_open, sample_masks
from mgnp_jax.methods.node_pruning.nested import PRICES, draw_prices
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns, masked_logits
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.types import Masks, Params


def objective(
    log_alpha: Masks,
    key: jax.Array,
    config: Settings,
    model_config: ModelConfig,
    params: Params,
    runs: CachedRuns,
    step: jax.Array,
    compaction: Compaction | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """Equation 7 for one draw of the gates.

    Args:
      log_alpha: float arrays by granularity; first, because it is what is differentiated.
      key: [] typed key; consumed.
      config: loss, weights and schedules.
      model_config: the model's shape.
      params: the frozen weights.
      runs: B prompts with their plain passes.
      step: [] int, for the schedules.
      compaction: what is left of the model; None for all of it.

    Returns:
      The loss; it and its terms by name, with the expected open fractions under `kept`.
    """
    noise = schedule.noise_scale(config, step)
    count = math.prod(runs.base_logits.shape[:-1])
    parts = [log_alpha] if compaction is None else _left(config, compaction, log_alpha)
    keys = [key] if compaction is None else jax.random.split(key, len(parts))
    shift = weight = None
    if config.nested:
        shift, weight = draw_prices(
            jax.random.fold_in(key, PRICES), config.nesting, count, step, config.votes
        )
    masks = [sample_masks(k, part, config, noise, count, shift) for k, part in zip(keys, parts)]
    size = losses.score_size(runs)

    def unfaithful(
        masks: Any, runs: CachedRuns, weight: jax.Array | None
    ) -> tuple[jax.Array, losses.Terms]:
        logits, runs = _run(config, model_config, params, masks, runs, compaction)
        loss = losses.LOSSES[config.loss]
        return loss(config, logits, runs, size, weight)

    if config.execution.accumulate > 1:
        parts = config.execution.accumulate
        loss, terms = _one_after_another(unfaithful, parts, masks, runs, weight)
    else:
        loss, terms = unfaithful(masks, runs, weight)
    kept = expected_open(log_alpha, config.trained, shift, config.votes)
    sizes = {name: leaf.size // config.votes for name, leaf in log_alpha.items()}
    prices = config.penalties.of_model(model_config, config.trained)
    terms["penalty"] = losses.penalty(kept, sizes, prices)
    # With a price a prompt, `penalty` is not one of training's.
    price = 1.0 if config.nested else config.penalty
    loss += schedule.penalty_scale(config, step) * price * terms["penalty"]
    return loss, {"loss": loss, **terms, "kept": kept}


def _left(config: Settings, compaction: Compaction, log_alpha: Masks) -> list[Masks]:
    """Log-alpha of what is left of the model, for each segment."""
    if config.votes == 1:
        return compaction.masks(log_alpha)
    return jax.vmap(compaction.masks)(log_alpha)


def _run(
    config: Settings,
    model_config: ModelConfig,
    params: Params,
    masks: list[Masks],
    runs: CachedRuns,
    compaction: Compaction | None,
) -> tuple[jax.Array, CachedRuns]:
    """Logits [B, V] of the masked pass, and the runs, both without an axis of devices."""
    run = functools.partial(
        masked_logits,
        model_config,
        params,
        segments=None if compaction is None else compaction.segments,
        remat=config.execution.remat,
    )
    if config.execution.replicas == 1:
        return run(masks=masks, runs=runs), runs
    # Each device its own prompts' gates; then one batch again, as on a single device.
    each, axes = _split(masks, config.execution.replicas)
    logits = jax.vmap(lambda m, r: run(masks=m, runs=r), (axes, 0))(each, runs)
    whole = (logits, runs.base_logits, runs.targets)
    logits, base, targets = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), whole)
    return logits, runs.replace(base_logits=base, targets=targets)  # type: ignore[attr-defined]


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
    unfaithful: Callable[..., Any],
    count: int,
    masks: list[Masks],
    runs: CachedRuns,
    weight: jax.Array | None,
) -> tuple[jax.Array, losses.Terms]:
    """Means over the parts of a batch, of which one at a time is in memory.

    Each part's gradient in the gates is taken when it runs. What is returned is linear in
    the gates with just that slope, so nothing of a part need be kept for a backward pass.
    """
    each, axes = _split(masks, count)
    first = jax.tree.map(jnp.moveaxis, each, axes, jax.tree.map(lambda _: 0, axes))
    gradient = jax.value_and_grad(unfaithful, has_aux=True)
    (values, terms), slopes = jax.lax.map(
        lambda part: gradient(*part),
        (
            jax.lax.stop_gradient(first),
            runs,
            None if weight is None else weight.reshape(count, -1),
        ),
    )
    moved = jax.tree.map(
        lambda slope, gate: (slope * (gate - jax.lax.stop_gradient(gate))).sum(), slopes, first
    )
    loss = values.mean() + sum(jax.tree.leaves(moved)) / count
    return loss, jax.tree.map(lambda term: term.mean(), terms)
