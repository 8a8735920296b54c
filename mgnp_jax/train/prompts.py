"""A split in training: its plain passes kept where they fit, recomputed where not."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.metrics.evaluate import collect, per_prompt, summarise
from mgnp_jax.metrics.streams import Streams, chunk_rows, prepare, run_streams, stream_bytes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.types import Batch, Masks, Params

Record = dict[str, Any]


@functools.partial(jax.jit, static_argnums=0)
def _measure_rows(
    config: ModelConfig, params: Params, masks: Masks, streams: Streams, rows: jax.Array
) -> Record:
    return per_prompt(config, params, masks, streams.take(rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """A split whose plain passes are kept in memory, or recomputed batch by batch.

    Attributes:
      model: the model.
      batch: the split.
      kept: its plain passes; None if they did not fit.
    """

    model: Model
    batch: Batch
    kept: Streams | None

    def rows(self, rows: np.ndarray) -> tuple[Streams, jax.Array]:
        """Plain passes of some prompts.

        Args:
          rows: [B] int32.

        Returns:
          Streams, and which of their rows are the ones asked for.
        """
        if self.kept is not None:
            return self.kept, jnp.asarray(rows)
        model, batch = self.model, self.batch.take(rows)
        return run_streams(model.config, model.params, batch), jnp.arange(len(rows))

    def measure(self, masks: Masks, size: int) -> Record:
        """Metrics of a binary circuit on the whole split.

        Args:
          masks: bool arrays by granularity.
          size: prompts a piece.
        """
        pieces = []
        for chosen, real in chunk_rows(len(self.batch), size):
            streams, rows = self.rows(chosen)
            model = self.model
            result = _measure_rows(model.config, model.params, masks, streams, rows)
            pieces.append((jax.device_get(result), real))
        return summarise(collect(pieces))


def keep_what_fits(model: Model, splits: list[Batch], config: DiscoverConfig) -> list[Prompts]:
    """Computes the plain passes of splits once, as far as the memory budget goes.

    Args:
      model: the model.
      splits: in order of importance.
      config: memory budget and batch size.
    """
    budget = config.cache_gib * 2**30
    prompts = []
    for batch in splits:
        need = stream_bytes(model.config, batch)
        fits = need <= budget
        budget -= need if fits else 0
        kept = prepare(model.config, model.params, batch, config.batch_size) if fits else None
        prompts.append(Prompts(model=model, batch=batch, kept=kept))
    return prompts
