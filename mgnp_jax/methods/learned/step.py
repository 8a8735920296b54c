"""One jit-compiled step of optax on what a ranking is learned by."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mgnp_jax.methods.learned.config import Fixed, Learned
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.types import MASK_STREAM, Masks, Params, Record, stream_key


@struct.dataclass
class Learning:
    """What a compiled step reads and writes.

    Attributes:
      step: [] int32, steps done.
      moved: a method's own, pytree of float32.
      opt_state: optax's.
      bad: [] int32, the first step (from 1) whose loss or gradient was not a number, from which on
        nothing moves; 0 while there is none.
    """

    step: jax.Array
    moved: Any
    opt_state: optax.OptState
    bad: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def first_learning(config: Learned, model_config: ModelConfig, key: jax.Array) -> Learning:
    """What is moved, and the optimiser, before the first step.

    Args:
      config: static; the method.
      model_config: static.
      key: [] typed key; consumed.
    """
    moved, none = config.first(key, model_config), jnp.zeros((), jnp.int32)
    return Learning(step=none, moved=moved, opt_state=config.optimiser().init(moved), bad=none)


@functools.partial(jax.jit, static_argnums=(0, 1))
def learned_step(
    config: Learned,
    model_config: ModelConfig,
    root: jax.Array,
    params: Params,
    fixed: Fixed,
    state: Learning,
    runs: CachedRuns,
) -> tuple[Learning, Record]:
    """One step; weights are read only.

    Args:
      config: static; `of_a_step`, so as to compile once.
      model_config: static.
      root: [] typed key of the run; folded with the step, not consumed.
      params: the frozen weights.
      fixed: what stays.
      state: not donated, so that a step which finds no memory can be done again.
      runs: B prompts with their plain passes.

    Returns:
      The next state; the loss terms of this step, before the update. From a step on whose loss or
      gradient is not a number, the state stays and names it as `bad`.
    """
    key = stream_key(root, MASK_STREAM, state.step)

    def run(masks: Masks) -> jax.Array:
        return _on_parts(config, model_config, params, masks, runs)

    def loss(moved: Any) -> Any:
        return config.loss(moved, fixed, key, state.step, run)

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.moved)
    updates, opt_state = config.optimiser().update(gradient, state.opt_state, state.moved)
    moved = optax.apply_updates(state.moved, updates)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, moved))]
    numbers = (state.bad == 0) & jnp.stack(finite).all()
    after = Learning(step=state.step + 1, moved=moved, opt_state=opt_state, bad=state.bad)
    stays = state.replace(bad=jnp.where(state.bad, state.bad, state.step + 1))  # type: ignore[attr-defined]
    after = jax.tree.map(lambda new, old: jnp.where(numbers, new, old), after, stays)
    return after, {"loss": value, **terms}


def _on_parts(
    config: Learned, model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns
) -> jax.Array:
    """[] mean over the parts of a batch: those of devices side by side, the others in turn."""

    def each(runs: CachedRuns) -> jax.Array:
        logits = circuit_logits(model_config, params, masks, runs).astype(jnp.float32)
        base = runs.base_logits.astype(jnp.float32)
        runs = runs.replace(base_logits=base)  # type: ignore[attr-defined]
        return -FIGURES[config.loss_on](logits, runs).mean()

    if config.execution.replicas > 1:
        one = each

        def each(runs: CachedRuns) -> jax.Array:  # noqa: F811
            return jax.vmap(one)(runs).mean()

    if config.execution.accumulate > 1:
        # Of each part only its result is kept, and the part run again for its gradient.
        return jax.lax.map(jax.checkpoint(each), runs).mean()
    return each(runs)
