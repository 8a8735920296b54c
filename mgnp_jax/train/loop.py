"""The training loop: one jit-compiled step, validation of the binary circuit, the best kept."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mgnp_jax.masks.circuit import Circuit, binarise
from mgnp_jax.masks.granularities import full_masks, gate_count
from mgnp_jax.metrics.evaluate import check_prompts
from mgnp_jax.metrics.stand_in import stand_in
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.models.layers import sealed
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.train import losses, schedule
from mgnp_jax.train.compaction import Compaction, compact, full_cost
from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.train.dial import dial_of
from mgnp_jax.train.prompts import Piece, chosen, keep_what_fits
from mgnp_jax.train.shares import shares
from mgnp_jax.train.validation import validated
from mgnp_jax.types import MASK_STREAM, Masks, MgnpError, Params, checksum, stream_key

Record = dict[str, Any]

SURELY_OPEN = 20.0
"""Log-alpha of gates that are not trained."""


@struct.dataclass
class TrainState:
    """What a step reads and writes; the model's weights are not in it.

    Attributes:
      step: [] int32, steps done.
      log_alpha: float32 arrays by granularity.
      opt_state: optax's.
    """

    step: jax.Array
    log_alpha: Masks
    opt_state: optax.OptState


@functools.partial(jax.jit, static_argnums=(0, 1))
def init_state(config: DiscoverConfig, model_config: ModelConfig) -> TrainState:
    """The state before the first step.

    Args:
      config: where log-alpha starts.
      model_config: the model's shape.
    """
    starts = full_masks(model_config, config.initial_log_alpha, embedding=config.train_embedding)
    log_alpha = {
        name: leaf if name in config.trained else jnp.full_like(leaf, SURELY_OPEN)
        for name, leaf in starts.items()
    }
    opt_state = schedule.optimiser(config).init(log_alpha)
    return TrainState(step=jnp.zeros((), jnp.int32), log_alpha=log_alpha, opt_state=opt_state)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def train_step(
    config: DiscoverConfig,
    model_config: ModelConfig,
    root: jax.Array,
    params: Params,
    state: TrainState,
    piece: Piece,
    aim: schedule.Aim,
    compaction: Compaction | None,
) -> tuple[TrainState, Record]:
    """One step of optax on log-alpha.

    Args:
      config: static.
      model_config: static.
      root: [] typed key of the run; folded with the step, not consumed.
      params: the frozen weights; read only.
      state: donated.
      piece: B prompts with their plain passes.
      aim: the score and the price as validation has them.
      compaction: what is left of the model; None for all of it.

    Returns:
      The next state; the loss terms and kept shares of this step, before the update.
    """
    key = stream_key(root, MASK_STREAM, state.step)
    value_and_grad = jax.value_and_grad(losses.objective, has_aux=True)
    (_, record), grads = value_and_grad(
        state.log_alpha,
        key,
        config,
        model_config,
        params,
        chosen(piece),
        state.step,
        aim,
        compaction,
    )
    updates, opt_state = schedule.optimiser(config).update(grads, state.opt_state)
    log_alpha = cast(Masks, optax.apply_updates(state.log_alpha, updates))
    if compaction is not None:
        log_alpha = compaction.hold(log_alpha, state.log_alpha)
    return TrainState(step=state.step + 1, log_alpha=log_alpha, opt_state=opt_state), record


def discover(
    key: jax.Array,
    model: Model,
    data: TaskData,
    config: DiscoverConfig | None = None,
    *,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Circuit:
    """Finds the circuit of a task.

    Args:
      key: [] typed key; consumed. The same key gives the same log-alpha, bit by bit, on
        one machine.
      model: the model; its weights are read only.
      data: training prompts move log-alpha, validation prompts choose the circuit.
      config: how; the default serves all models and tasks.
      on_record: called with a dict at every logged step (`step`, `loss`, its terms,
        `kept`), validation (`step`, `validation`) and compaction (`step`, `cost`, the
        multiply-adds of what is left over those of the whole model).

    Returns:
      The binary circuit with the least objective on the validation split. Stopped by the
      user (KeyboardInterrupt), the best so far.

    Raises:
      MgnpError: for prompts the model cannot take, or a loss that is not a number.
    """
    config = config or DiscoverConfig()
    splits = [data.train, data.validation.take(slice(config.validation_prompts))]
    for part in splits:
        check_prompts(model.config, part)
    started = time.perf_counter()
    size = min(config.batch_size, len(data.train))
    if size % (config.devices * config.accumulate):
        raise MgnpError(
            f"{size} training prompts cannot be shared evenly by {config.devices} devices in "
            f"{config.accumulate} parts; bring more prompts or ask for fewer"
        )
    shared = shares(config.devices, config.accumulate)
    params = sealed(model.params, config.dtype)
    params, key = shared.replicate((params, key))
    at_once = size // config.accumulate
    constants = stand_in(model.config, params, data.train, config.ablation, at_once)
    train, validation = keep_what_fits(model.config, params, splits, config, constants)
    tokens = train.where.lengths - train.where.starts
    order = schedule.batch_order(key, tokens, size, config.steps)
    sizes = shared.sizes(train.where, order)
    static = config.of_a_step
    state = shared.replicate(init_state(static, model.config))
    best: tuple[float, Masks, Masks, Record] | None = None
    record: Record = {}
    aim = shared.replicate(schedule.first_aim(config))
    dial = dial_of(config, model.config)
    compaction, cost = None, full_cost(model.config)
    done, interrupted = 0, False
    try:
        for step, rows in enumerate(order):
            piece = shared.piece(train, rows, sizes)
            state, out = train_step(
                static, model.config, key, params, state, piece, aim, compaction
            )
            done = step + 1
            if step % config.log_every == 0 or done == config.steps:
                record = {"step": done} | jax.tree.map(float, out)
                if not math.isfinite(record["loss"]):
                    raise MgnpError(
                        f"the loss is {record['loss']} at step {done} (kl {record['kl']}, "
                        f"score_gap {record['score_gap']}): the model gives logits that are not "
                        "numbers on these prompts; check the checkpoint"
                    )
                on_record(record)
            if done % config.validate_every == 0 or done == config.steps:
                log_alpha = jax.tree.map(jnp.copy, state.log_alpha)
                masks = binarise(log_alpha)
                measured = validation.measure(masks, at_once)
                summary = validated(config, done, masks, measured, aim)
                value = summary["objective"]
                lift = schedule.next_lift(aim.lift, measured["score"], measured["base_score"])
                price = aim.price
                if dial is not None:
                    figure = dial.value(masks, measured["kl"])
                    price = dial.next_price(price, figure, done / config.steps)
                if done < config.steps:
                    aim = shared.replicate(schedule.Aim(lift=lift, price=price))
                on_record({"step": done, "validation": summary})
                if not math.isfinite(value):
                    raise MgnpError(
                        f"the binary circuit of step {done} gives logits that are not numbers on "
                        "the validation prompts; check the checkpoint"
                    )
                # With a dial, prices of earlier steps were not yet those that meet it.
                if best is None or dial is not None or value < best[0]:
                    best = value, masks, log_alpha, summary
                if config.compact and config.cache != "off" and done < config.steps:
                    noise = float(schedule.noise_scale(config, state.step))
                    to_come = (config.steps - done) * sizes.tokens * shared.count
                    less = compact(
                        model.config, params, log_alpha, noise, cost, compaction, to_come
                    )
                    if less is not None:
                        compaction, cost = less
                        compaction = shared.replicate(compaction)
                        state = state.replace(log_alpha=compaction.close(state.log_alpha))  # type: ignore[attr-defined]
                        train, validation = (p.compacted(compaction) for p in (train, validation))
                        on_record({"step": done, "cost": cost / full_cost(model.config)})
        if dial is not None and best is not None:
            log_alpha, masks, measured = dial.settle(
                best[2],
                config.granularities,
                (lambda new, old: new) if compaction is None else compaction.hold,
                lambda masks: validation.measure(masks, at_once),
            )
            summary = validated(config, done, masks, measured, aim)
            best = summary["objective"], masks, log_alpha, summary
            on_record({"step": done, "validation": summary})
    except KeyboardInterrupt:
        if best is None:
            raise
        interrupted = True
    if best is None:
        raise AssertionError("the last step always validates")
    _, masks, log_alpha, summary = best
    metadata = {
        "model": model.name,
        "config_hash": model.config.hash(),
        "task": data.name,
        "origin": {"source": data.source, "seed": data.seed},
        "data": data.counts(),
        "data_checksum": data.checksum(),
        "weights_checksum": checksum(model.params),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "gates": gate_count(
            model.config, embedding=config.train_embedding, names=config.granularities
        ),
        "discover": dataclasses.asdict(config),
        "training": {
            "steps": done,
            "interrupted": interrupted,
            "seconds": time.perf_counter() - started,
            "loss": {k: v for k, v in record.items() if k not in ("step", "kept")},
        },
        "validation": summary,
    }
    return Circuit(masks=masks, log_alpha=log_alpha, metadata=metadata, stand_in=constants)
