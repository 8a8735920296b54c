"""One jit-compiled step of optax on log-alpha."""

from __future__ import annotations

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from mgnp_jax.methods.node_pruning import schedule
from mgnp_jax.methods.node_pruning.compaction import hold
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.objective import objective
from mgnp_jax.methods.node_pruning.state import TrainState
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.types import MASK_STREAM, Masks, Params, Record, stream_key


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_step(
    config: Settings,
    model_config: ModelConfig,
    root: jax.Array,
    params: Params,
    state: TrainState,
    runs: CachedRuns,
    compaction: Compaction | None,
    left: Masks | None,
) -> tuple[TrainState, Record]:
    """One step of optax on log-alpha; weights are read only.

    Args:
      config: static; `of_a_step`, so as to compile once.
      model_config: static.
      root: [] typed key of the run; folded with the step, not consumed.
      params: the frozen weights.
      state: not donated, so that a step which finds no memory can be done again.
      runs: B prompts with their plain passes.
      compaction: what is left of the model in this step; None for all of it.
      left: [L, …] bool by granularity, False where a gate is closed for good; None if none is.

    Returns:
      The next state; the loss terms and open fractions of this step, before the update. From a
      step on whose loss or gradient is not a number, the state stays and names it as `bad`.
    """
    key = stream_key(root, MASK_STREAM, state.step)
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    (loss, record), grads = value_and_grad(
        state.log_alpha,
        key,
        config,
        model_config,
        params,
        runs,
        state.step,
        compaction,
    )
    updates, opt_state = schedule.optimiser(config).update(grads, state.opt_state, state.log_alpha)
    log_alpha = cast(Masks, optax.apply_updates(state.log_alpha, updates))
    # A gradient that is not a number makes gates that are none, and is seen there.
    numbers = (state.bad == 0) & _all_finite((loss, log_alpha))
    log_alpha = hold(log_alpha, state.log_alpha, left)
    moved = TrainState(step=state.step + 1, log_alpha=log_alpha, opt_state=opt_state, bad=state.bad)
    stays = state.replace(bad=jnp.where(state.bad, state.bad, state.step + 1))  # type: ignore[attr-defined]
    return jax.tree.map(lambda new, old: jnp.where(numbers, new, old), moved, stays), record


def _all_finite(tree: Any) -> jax.Array:
    each = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(each).all()
