"""What the training loop works with: batches, cached runs, what is left of the model."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from mgnp_jax.methods.node_pruning import schedule
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.ablation import ablation_values
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.precision import as_stored
from mgnp_jax.passes.segment_plan import full_cost
from mgnp_jax.passes.sharding import BatchSharding, batch_sharding
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.passes.split_runs import SplitRuns, keep_what_fits
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import AblationValues, MgnpError, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What the loop works with: all of it follows from the settings and `LoopState.left`.

    Attributes:
      config: as it was given.
      static: what a compiled step depends on.
      model: the model.
      params: its weights as stored, on every device.
      key: [] root key, on every device.
      sharding: how a batch is cut up.
      train: the training prompts.
      validation: the validation prompts.
      order: [steps, B] rows of the training prompts.
      sizes: array sizes of a batch.
      at_once: prompts that run together.
      constants: given to pruned nodes; None for the corrupted run's values.
      compaction: what is left of the model; None for all of it.
      cost: multiply-adds a token of what is left.
    """

    config: Settings
    static: Settings
    model: Model
    params: Params
    key: jax.Array
    sharding: BatchSharding
    train: SplitRuns
    validation: SplitRuns
    order: np.ndarray
    sizes: Sizes
    at_once: int
    constants: AblationValues | None
    compaction: Compaction | None = None
    cost: float


def prepare(key: jax.Array, model: Model, data: TaskData, config: Settings) -> Work:
    """Runs what no mask can change, and lays out the batches.

    Args:
      key: [] typed key of the run.
      model: the model.
      data: its prompts.
      config: how.

    Raises:
      MgnpError: if the training prompts cannot be shared by the devices.
    """
    execution, known = config.execution, data.train.targets.kl_over
    if config.kl_over not in (None, *known):
        raise MgnpError(
            f"kl_over must be one of the prompts' own ({', '.join(known) or 'they have none'}), "
            f"got {config.kl_over!r}"
        )
    size = min(config.batch_size, len(data.train))
    if size % execution.parts:
        raise MgnpError(
            f"{size} training prompts cannot be shared evenly by {execution.devices} devices in "
            f"{execution.accumulate} parts; bring more prompts or ask for fewer"
        )
    sharding = batch_sharding(execution.devices, execution.accumulate)
    params = as_stored(model.params, execution.dtype)
    params, key = sharding.replicate((params, key))
    at_once = size // execution.accumulate
    constants = ablation_values(model.config, params, data.train, config.ablation, at_once)
    splits = [data.train, data.validation.take(slice(config.validation_prompts))]
    train, validation = keep_what_fits(
        *(model.config, params, splits, config.batch_size, execution, constants)
    )
    tokens = train.spans.lengths - train.spans.starts
    order = schedule.batch_order(key, tokens, size, config.steps)
    return Work(
        config=config,
        static=config.of_a_step,
        model=model,
        params=params,
        key=key,
        sharding=sharding,
        train=train,
        validation=validation,
        order=order,
        sizes=sharding.sizes(train.spans, order),
        at_once=at_once,
        constants=constants,
        cost=full_cost(model.config),
    )
