"""What a training loop works with: batches, cached runs, what is left of the model."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.methods.training.batch_order import prompts_of_step, rows_of_steps
from mgnp_jax.methods.training.trained import Trained
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.ablation import ablation_values
from mgnp_jax.passes.budget import bytes_beside
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.keeping import keep_what_fits
from mgnp_jax.passes.precision import in_precision
from mgnp_jax.passes.segment_plan import full_cost
from mgnp_jax.passes.sharding import BatchSharding, batch_sharding
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.passes.storage import Room
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import AblationValues, MgnpError, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """What some of a loop's steps run on.

    Attributes:
      train: the training prompts.
      compaction: what is left of the model; None for all of it.
      cost: multiply-adds a token of what is left.
    """

    train: SplitRuns
    compaction: Compaction | None = None
    cost: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a loop works with: all of it follows from the settings and what is left of the model.

    Attributes:
      config: as it was given.
      static: what a compiled step depends on.
      model: the model.
      params: its weights as stored, on every device or shared by groups of them.
      key: [] root key, on every device.
      sharding: how a batch is cut up.
      bands: steps go through them in turn.
      validation: the validation prompts, of what is left in the first band.
      order: [steps, B] rows of the training prompts; of several trainings one after the other.
      sizes: array sizes of a batch.
      at_once: prompts that run together.
      constants: given to pruned nodes; None for the corrupted run's values.
      ahead: a step and its batch, laid out before its turn; None if there is none.
      read: [N] which of the split's prompts the training prompts are.
      no_files: files had no room for what is kept when they were last tried.
    """

    config: Any
    static: Any
    model: Model
    params: Params
    key: jax.Array
    sharding: BatchSharding
    bands: tuple[Band, ...]
    validation: SplitRuns
    order: np.ndarray
    sizes: Sizes
    at_once: int
    constants: AblationValues | None
    ahead: tuple[int, CachedRuns] | None = None
    read: np.ndarray
    no_files: bool = False

    @property
    def train(self) -> SplitRuns:
        """The training prompts, of what is left in the first band."""
        return self.bands[0].train

    @property
    def cost(self) -> float:
        """Multiply-adds a token, the mean over bands."""
        return sum(band.cost for band in self.bands) / len(self.bands)

    def band_of(self, step: int) -> Band:
        """What a step runs on.

        Args:
          step: from 0.
        """
        return self.bands[step % len(self.bands)]

    def in_bands(self, count: int) -> Work:
        """The same in so many bands, all as the one there is, with a part of its room each.

        Args:
          count: at least 1.
        """
        (band,) = self.bands
        room = Room(*(each // count for each in band.train.room))
        train = dataclasses.replace(band.train, room=room)
        return dataclasses.replace(self, bands=(dataclasses.replace(band, train=train),) * count)

    def batch_of(self, step: int) -> CachedRuns:
        """What a step reads.

        Args:
          step: from 0.
        """
        if self.ahead is not None and self.ahead[0] == step:
            return self.ahead[1]
        return self.sharding.rows(self.band_of(step).train, self.order[step], self.sizes)

    def ahead_of(self, step: int) -> Work:
        """The same with the batch of a step laid out, where there is room for one more.

        Args:
          step: from 0; one that is not run has none.
        """
        in_files = self.train.kept is not None and not self.kept_in(object)
        # Where nothing but files has room, a second batch beside that of the step has none.
        if step >= len(self.order) or in_files:
            return dataclasses.replace(self, ahead=None)
        # Not of another step: the batch that is there has been used.
        batch = dataclasses.replace(self, ahead=None).batch_of(step)
        return dataclasses.replace(self, ahead=(step, batch))

    def compacted(self, smaller: Compaction, cost: float, band: int = 0) -> Work:
        """The same for what is left of the model.

        Args:
          smaller: what is left.
          cost: multiply-adds a token of it.
          band: whose steps it is for.
        """
        bands = list(self.bands)
        train = bands[band].train.compacted(smaller)
        bands[band] = Band(train=train, compaction=smaller, cost=cost)
        validation = self.validation if band else self.validation.compacted(smaller)
        return dataclasses.replace(self, bands=tuple(bands), validation=validation, ahead=None)

    def kept_in(self, kind: type) -> bool:
        """Whether values are kept outside of files, as arrays of a kind.

        Args:
          kind: `np.ndarray` for the host's memory, `jax.Array` for the device's.
        """
        splits = (*(band.train for band in self.bands), self.validation)
        return any(split.kept_in(kind) for split in splits)

    def in_files(self) -> Work:
        """The same with all that is kept in files; or with `no_files`, if they have no room."""
        # Bands share what is kept of the whole model.
        moved: dict[int, Any] = {}

        def moved_band(band: Band) -> Band:
            return dataclasses.replace(band, train=band.train.in_files(moved))

        try:
            bands = tuple(map(moved_band, self.bands))
            validation = self.validation.in_files()
        except MgnpError:
            return dataclasses.replace(self, no_files=True)
        return dataclasses.replace(
            self, bands=bands, validation=validation, ahead=None, no_files=False
        )


def prepare(
    key: jax.Array, model: Model, data: TaskData, config: Trained, on_record: OnRecord
) -> Work:
    """Runs what no mask can change, and lays out the batches.

    Args:
      key: [] typed key of the run.
      model: the model.
      data: its prompts.
      config: how.
      on_record: told what memory the run will take, and how the plain passes go.

    Raises:
      MgnpError: if the training prompts cannot be shared by the devices, or values of the plain
        passes have no room.
    """
    execution, size = config.execution, prompts_of_step(config, len(data.train))
    sharding = batch_sharding(execution.devices, execution.accumulate, execution.shard)
    acting, stored = in_precision(model.config, model.params, execution.precision)
    params = sharding.place(acting, stored)
    model = dataclasses.replace(model, config=acting)
    key = sharding.replicate(key)
    at_once = size // execution.accumulate
    constants = ablation_values(model.config, params, data.train, config.ablation, at_once)
    read, order = rows_of_steps(key, data.train, config, size)
    splits = [data.train.take(read), data.validation.of_pairs(slice(config.validation_prompts))]
    train, validation = keep_what_fits(
        *(model.config, params, splits, size, execution, constants),
        more_bytes=functools.partial(config.more_bytes, model.config),
        beside_bytes=bytes_beside(model.params, stored),
        on_record=on_record,
    )
    return Work(
        config=config,
        static=config.of_a_step,
        model=model,
        params=params,
        key=key,
        sharding=sharding,
        bands=(Band(train=train, cost=full_cost(model.config)),),
        validation=validation,
        order=order,
        sizes=sharding.sizes(train.spans, order),
        at_once=at_once,
        constants=constants,
        read=read,
    )
