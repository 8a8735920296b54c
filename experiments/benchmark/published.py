"""The published algorithm's training step, to time ours against."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
import optax

import mgnp_jax as mg
from mgnp_jax.masks.hard_concrete import soft_gates
from mgnp_jax.methods.node_pruning import losses, schedule
from mgnp_jax.methods.node_pruning.gates import expected_open
from mgnp_jax.methods.node_pruning.state import TrainState, first_trained
from mgnp_jax.metrics.scores import kl_divergence, score
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_forward import capture, masked_residual
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.packing import whole_grid

PADDED = 64
"""Tokens that the published algorithm pads prompts to."""


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def published_step(
    config: mg.DiscoverConfig,
    model_config: mg.ModelConfig,
    key: jax.Array,
    params: mg.Params,
    state: TrainState,
    batch: mg.Batch,
) -> TrainState:
    """The published algorithm: every pass in every step, padded, logits everywhere.

    Args:
      config: loss weights and optimiser.
      model_config: static.
      key: [] typed key; folded with the step, not consumed.
      params: the frozen weights.
      state: donated.
      batch: [B, 64] padded prompts.
    """
    layout = whole_grid(batch.attention_mask)
    shape = batch.clean.shape

    def logits_of(residual: jax.Array) -> jax.Array:
        return unembed(model_config, params, residual.reshape(*shape, -1))

    def at_answer(logits: jax.Array) -> jax.Array:
        return logits.reshape(-1, logits.shape[-1])[layout.answers]

    full = capture(model_config, params, batch.clean.reshape(-1), layout)
    base = at_answer(logits_of(full.residual))
    run = capture(model_config, params, batch.corrupted.reshape(-1), layout)
    # No prefix: its arrays have room for no position.
    none = run.keys[:, layout.grid[:, :0]]
    corrupted = CorruptedRun(embedding=run.embedding, values=(run.values,), prefix=((none, none),))
    target = batch.targets.scores["score"]

    def loss(log_alpha: mg.Masks) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(log_alpha))
        masks = {n: soft_gates(k, log_alpha[n]) for k, n in zip(keys, sorted(log_alpha))}
        residual = masked_residual(
            model_config, params, [masks], batch.clean.reshape(-1), corrupted, layout
        )
        # Everywhere, as published, though only one position is used; the barrier keeps the
        # compiler from seeing that.
        logits = at_answer(jax.lax.optimization_barrier(logits_of(residual)))
        sizes = {name: leaf.size for name, leaf in log_alpha.items()}
        prices = config.penalties.of_model(model_config)
        penalty = losses.penalty(expected_open(log_alpha, tuple(log_alpha)), sizes, prices)
        return kl_divergence(base, logits).mean() - score(target, logits).mean() + penalty

    grads = jax.grad(loss)(state.log_alpha)
    updates, opt_state = schedule.optimiser(config).update(grads, state.opt_state, state.log_alpha)
    log_alpha = cast(mg.Masks, optax.apply_updates(state.log_alpha, updates))
    return state.replace(step=state.step + 1, log_alpha=log_alpha, opt_state=opt_state)  # type: ignore[attr-defined]


def megabytes(compiled: Any) -> float:
    """Arguments, temporaries and outputs of a compiled function; shared buffers once."""
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return (total + memory.output_size_in_bytes - memory.alias_size_in_bytes) / 1e6


def padded(rows: int, batch: mg.Batch) -> mg.Batch:
    """The first prompts, padded as published.

    Args:
      rows: how many.
      batch: prompts.
    """
    width = ((0, 0), (0, max(0, PADDED - batch.clean.shape[1])))
    first = batch.take(slice(rows))
    clean, corrupted, mask = (
        np.pad(np.asarray(a), width) for a in (first.clean, first.corrupted, first.attention_mask)
    )
    return mg.Batch(clean=clean, corrupted=corrupted, attention_mask=mask, targets=first.targets)


def published(
    discover: mg.DiscoverConfig, model: mg.Model, batch: mg.Batch
) -> tuple[Callable[[], float], float]:
    """The published step, compiled: a function that times one, XLA's megabytes.

    Args:
      discover: loss weights.
      model: the model.
      batch: training prompts.
    """
    batch = padded(discover.batch_size, batch)
    key = jax.random.key(0)
    state = first_trained(discover, model.config, key)
    fixed = (discover, model.config, key, model.params)
    compiled = published_step.lower(*fixed, state, batch).compile()

    def step() -> float:
        nonlocal state
        started = time.perf_counter()
        state = jax.block_until_ready(compiled(key, model.params, state, batch))
        return time.perf_counter() - started

    return step, megabytes(compiled)
