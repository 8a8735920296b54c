"""Weights and a batch of prompts as shapes alone: what a compiler needs, and no memory."""

from __future__ import annotations

from typing import Any, Literal

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.weights import init_params
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.precision import in_precision
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.spans import packed_tokens, spans_of
from mgnp_jax.types import AnswerMetric, Answers, Batch, Params, Score, Targets


def abstract_params(model_config: ModelConfig) -> Params:
    """Shapes of the weights in float32.

    Args:
      model_config: the model's shape.
    """
    return jax.eval_shape(lambda key: init_params(key, model_config), jax.random.key(0))


def abstract_model(
    model_config: ModelConfig, dtype: Literal["float32", "bfloat16"]
) -> tuple[ModelConfig, Params]:
    """What `in_precision` makes of a model, its weights as shapes.

    Args:
      model_config: the model's shape.
      dtype: that it is to run in.
    """
    weights = abstract_params(model_config)
    stored = jax.eval_shape(lambda own: in_precision(model_config, own, dtype)[1], weights)
    return in_precision(model_config, {}, dtype)[0], stored


def equal_prompts(rows: int, tokens: int, shared: int, metric: AnswerMetric) -> Batch:
    """Prompts of one length, with a right and a wrong answer each; which tokens does not matter.

    Args:
      rows: B.
      tokens: T of each.
      shared: tokens before the first in which a pair differs, less than `tokens`.
      metric: how scores are read.
    """
    clean = np.zeros((rows, tokens), np.int32)
    corrupted = clean.copy()
    corrupted[:, shared:] = 1
    answers = Answers(
        tokens=np.tile(np.array([[0, 1]], np.int32), (rows, 1)),
        signs=np.tile(np.array([[1.0, -1.0]], np.float32), (rows, 1)),
    )
    score = Score(answers=answers, metric=metric)
    return Batch(
        clean=clean,
        corrupted=corrupted,
        attention_mask=np.ones(clean.shape, bool),
        targets=Targets(answers=answers, scores={"score": score}),
    )


def abstract_runs(
    model_config: ModelConfig, params: Params, shard: Batch, execution: Execution, share: bool
) -> CachedRuns:
    """Shapes of prompts with their plain passes, as a step reads them.

    Args:
      model_config: the model's shape.
      params: its weights, or their shapes.
      shard: the prompts that one device runs at once.
      execution: how passes are run; into how many shards a batch is cut is not looked at.
      share: whether tokens before a pair's first difference are left out, see `shares_prefix`.
    """
    return jax.eval_shape(
        lambda weights: _runs(model_config, weights, shard, execution, share), params
    )


def _runs(
    model_config: ModelConfig, params: Any, batch: Batch, execution: Execution, share: bool
) -> CachedRuns:
    runs = plain_runs(model_config, params, batch, share_prefix=share)
    if not execution.lockstep:
        return runs
    everything = np.arange(len(batch))
    spans = spans_of(batch, share_prefix=False)
    layout = spans.layout(everything, spans.sizes([everything]))
    _, corrupted = packed_tokens(batch, layout)
    return runs.replace(corrupted=corrupted)  # type: ignore[attr-defined]
