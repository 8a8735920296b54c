"""What a training run carries from step to step: one pytree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mgnp_jax.masks.granularities import full_masks
from mgnp_jax.methods.node_pruning import schedule
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.protocol import Saved
from mgnp_jax.methods.training.saved_trees import MOVING, by_name, restored
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.sharding import BatchSharding
from mgnp_jax.types import INIT_STREAM, Masks, stream_key

SURELY_OPEN = 1e5
"""Log-alpha of gates that are not trained: more than any price takes from it."""


@struct.dataclass
class TrainState:
    """What a compiled step reads and writes; the model's weights are not in it.

    Attributes:
      step: [] int32, steps done.
      log_alpha: float32 arrays by granularity.
      opt_state: optax's.
      bad: [] int32, the first step (from 1) whose loss or gradient was not a number, from which on
        nothing moves; 0 while there is none.
    """

    step: jax.Array
    log_alpha: Masks
    opt_state: optax.OptState
    bad: jax.Array


@struct.dataclass
class Best:
    """The circuit to keep, as it is known by now.

    Attributes:
      log_alpha: float32 arrays by granularity.
      masks: its circuit.
      record: its validation, JSON numbers.
    """

    log_alpha: Masks
    masks: Masks
    record: dict[str, Any]


@struct.dataclass
class LoopState:
    """All that a run carries between steps; what else it works with follows from its settings.

    Attributes:
      done: steps done.
      trained: what a step moves.
      left: [L, …] bool by granularity, False where closed for good; None while nothing is.
      dearer: the same for the steps of each further band of prices, False where closed at all of
        its prices when that was last looked at.
      best: the circuit to keep; None before the first validation.
      terms: loss terms of the last step that was logged, floats.
    """

    done: int
    trained: TrainState
    left: Masks | None = None
    dearer: tuple[Masks | None, ...] = ()
    best: Best | None = None
    terms: dict[str, float] = struct.field(default_factory=dict)


@functools.partial(jax.jit, static_argnums=(0, 1))
def first_trained(config: Settings, model_config: ModelConfig, key: jax.Array) -> TrainState:
    """Log-alpha and optimiser before the first step.

    Args:
      config: where log-alpha starts.
      model_config: the model's shape.
      key: [] typed key of the run; folded, not consumed.
    """
    starts = full_masks(model_config, config.initial_log_alpha, embedding=config.train_embedding)
    keys = jax.random.split(stream_key(key, INIT_STREAM, 0), len(starts))
    log_alpha = {}
    for (name, leaf), each in zip(starts.items(), keys):
        if name not in config.trained:
            leaf = jnp.full_like(leaf, SURELY_OPEN)
        elif config.initial_spread:
            spread = config.initial_spread
            leaf += jax.random.uniform(each, leaf.shape, leaf.dtype, -spread, spread)
        log_alpha[name] = leaf
    if config.votes > 1:
        log_alpha = _of_each(config, log_alpha)
    opt_state = schedule.optimiser(config).init(log_alpha)
    none = jnp.zeros((), jnp.int32)
    return TrainState(step=none, log_alpha=log_alpha, opt_state=opt_state, bad=none)


def _of_each(config: Settings, log_alpha: Masks) -> Masks:
    """Log-alpha of several trainings side by side, which begin alike."""
    return {
        name: jnp.broadcast_to(leaf, (config.votes, *leaf.shape))
        for name, leaf in log_alpha.items()
    }


def first_state(
    config: Settings, model_config: ModelConfig, key: jax.Array, sharding: BatchSharding
) -> LoopState:
    """The state before the first step.

    Args:
      config: where log-alpha starts.
      model_config: the model's shape.
      key: [] typed key of the run; folded, not consumed.
      sharding: whose devices all hold it.
    """
    trained = first_trained(config.of_a_step, model_config, key)
    dearer = (None,) * (config.bands - 1)
    return LoopState(done=0, trained=sharding.replicate(trained), dearer=dearer)


def _left_of(band: int) -> str:
    """Name of what is left for a band's steps, where a state is put aside."""
    return f"left_{band}" if band else "left"


def packed(state: LoopState) -> Saved:
    """A state as it can be put aside.

    Args:
      state: between two steps.
    """
    trees: dict[str, Any] = {MOVING: by_name(state.trained)}
    facts: dict[str, Any] = {"terms": state.terms}
    left = {_left_of(band): masks for band, masks in enumerate((state.left, *state.dearer))}
    trees |= {name: masks for name, masks in left.items() if masks is not None}
    if state.best is not None:
        trees |= {"best_log_alpha": state.best.log_alpha, "best_masks": state.best.masks}
        facts["record"] = state.best.record
    return Saved(done=int(state.done), trees=jax.device_get(trees), facts=facts)


def unpacked(first: LoopState, saved: Saved) -> LoopState:
    """The state that was put aside, bit for bit.

    Args:
      first: the state before the first step of the same search.
      saved: by `packed`.

    Raises:
      MgnpError: if it is made of other arrays than this version's.
    """
    trained = restored(first.trained, saved)
    best = None
    if "record" in saved.facts:
        log_alpha, masks = (
            jax.tree.map(jnp.asarray, saved.trees[name])
            for name in ("best_log_alpha", "best_masks")
        )
        best = Best(log_alpha=log_alpha, masks=masks, record=saved.facts["record"])
    return LoopState(
        done=saved.done,
        trained=trained,
        left=saved.trees.get(_left_of(0)),
        dearer=tuple(saved.trees.get(_left_of(1 + b)) for b in range(len(first.dearer))),
        best=best,
        terms=saved.facts["terms"],
    )
