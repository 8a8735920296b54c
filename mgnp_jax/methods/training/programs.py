"""The programs of a method that is trained step by step: its step, and plain passes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.stages import Traced

from mgnp_jax.methods.training.batch_order import prompts_of_step
from mgnp_jax.methods.training.trained import Trained
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.abstract_runs import abstract_model, abstract_runs
from mgnp_jax.passes.budget import bytes_of
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.keeping import shares_prefix
from mgnp_jax.passes.node_forward import answer_logits
from mgnp_jax.passes.programs import Program, Programs
from mgnp_jax.passes.sharding import batch_sharding
from mgnp_jax.passes.spans import packed_tokens, spans_of
from mgnp_jax.types import Batch, Params

Replicated = Callable[[Any], Any]
"""Arrays or shapes → shapes of them on every device."""

TracedStep = Callable[[ModelConfig, Params, CachedRuns, Replicated], Traced]
"""The model's shape, shapes of its weights and of a step's prompts → the step."""


def trained_programs(
    config: Trained,
    model_config: ModelConfig,
    train: Batch,
    traced: TracedStep,
    *,
    copies: int = 0,
) -> Programs:
    """The step, and the plain passes that it reads.

    Args:
      config: the method.
      model_config: the model's shape.
      train: the training prompts.
      traced: traces the step.
      copies: of what is left of the layers that may lie beside the weights.

    Raises:
      MgnpError: if devices cannot share a step's prompts, or there are fewer.
    """
    execution, size = config.execution, prompts_of_step(config, len(train))
    sharding = batch_sharding(execution.devices, execution.accumulate, execution.shard)
    share = shares_prefix(execution, config.ablation)
    model_config, weights = abstract_model(model_config, execution.precision)
    # Several trainings may have a prompt at once.
    shard = train.take(np.arange(size // sharding.count) % len(train))
    runs = abstract_runs(model_config, weights, shard, execution, share)
    params = sharding.abstract_weights(model_config, weights)
    step = traced(model_config, params, sharding.abstract_rows(runs), sharding.abstract_replicas)
    # At most: what training has closed by then is left out of it.
    copied = copies * bytes_of(params["blocks"])
    # Prompts whose plain passes are kept run in whole batches, on every device the same.
    at_once = size // (sharding.count if execution.cache == "batch" else execution.accumulate)
    runs_of_search = -(-len(train) // at_once)
    if execution.cache == "batch":
        runs_of_search = config.steps * sharding.count
    plain = _plain(
        model_config, train.take(slice(min(at_once, len(train)))), execution.lockstep, share
    )
    each = {
        "plain": Program(
            traced=plain.trace(params),
            times=runs_of_search,
            devices=execution.shard,
        ),
        "step": Program(traced=step, times=config.steps, devices=execution.devices, beside=copied),
    }
    return Programs(
        params=params,
        prompts=size // sharding.count,
        each=each,
        halved=execution.precision != "float32",
    )


def _plain(model_config: ModelConfig, batch: Batch, lockstep: bool, share: bool) -> Any:
    """What is run of prompts before a step reads them: weights → results."""
    if not lockstep:
        return jax.jit(lambda params: plain_runs(model_config, params, batch, share_prefix=share))
    spans, everything = spans_of(batch, share_prefix=False), np.arange(len(batch))
    layout = spans.layout(everything, spans.sizes([everything]))
    clean, _ = packed_tokens(batch, layout)
    return jax.jit(functools.partial(_logits, model_config, clean, layout))


def _logits(model_config: ModelConfig, clean: Any, layout: Any, params: Params) -> jax.Array:
    return answer_logits(model_config, params, clean, layout)
