"""What a run works with: the model, its prompts, and those that it measures on."""

from __future__ import annotations

from typing import Any

from mgnp_jax.metrics.evaluate import check_prompts
from mgnp_jax.models.hub import Model, load_model
from mgnp_jax.passes.settings import execution_of
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.tasks import load_task
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch

Loaded = tuple[Model, TaskData, Batch]
"""The model, its prompts, and those of the test split that are measured on."""


def placement_of(method: Any) -> dict[str, Any]:
    """How `load_model` should lay weights out for a method.

    Args:
      method: config of one. If it trains in 16 bits, weights stay in those that they are stored
        in, with which figures in float32 are the same.
    """
    execution = execution_of(method)
    dtype = "float32" if execution.precision == "float32" else "stored"
    return {"dtype": dtype, "devices": execution.devices, "shard": execution.shard}


def load(config: RunConfig) -> Loaded:
    """Loads model and prompts of a run.

    Args:
      config: of the run.

    Raises:
      MgnpError: if there are none such, or the model cannot take them.
    """
    model = load_model(config.model, **placement_of(config.config))
    data = load_task(
        config.source,
        model.tokenizer,
        config.seed,
        skip_bad=config.skip_bad,
        extra_corruptions=config.extra_corruptions,
        train_prompts=config.train_prompts,
        metric=config.metric,
        answer=config.answer,
        prefix=config.prefix,
        limits=model.config,
    )
    test = data.test.of_pairs(slice(config.test_prompts))
    check_prompts(model.config, test)
    return model, data, test
