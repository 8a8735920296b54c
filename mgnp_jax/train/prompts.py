"""A split in training: its plain passes kept where they fit, recomputed where not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mgnp_jax.metrics.evaluate import collect, per_prompt, summarise
from mgnp_jax.metrics.extent import Extent, Selection, Sizes, extent, largest, packed_tokens
from mgnp_jax.metrics.streams import Streams, chunk_rows, prepare, run_streams, stream_bytes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.forward import answer_logits
from mgnp_jax.models.nodes import Corrupted
from mgnp_jax.models.segments import Segment, narrow_values
from mgnp_jax.train.compaction import Compaction
from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.types import Batch, Masks, Params, StandIn

Record = dict[str, Any]

Piece = tuple[Streams, Selection | None]
"""What a step reads: streams, and which part of them (None: all)."""


def chosen(piece: Piece) -> Streams:
    """The streams of a piece; inside a compiled function, where picking them is free.

    Args:
      piece: streams, and which part of them; with leading axes of parts and devices, or
        without.
    """
    streams, selection = piece
    if selection is None:
        return streams
    take = streams.take
    for _ in range(selection.rows.ndim - 1):
        take = jax.vmap(take)
    return take(selection)


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    config: ModelConfig,
    params: Params,
    masks: Masks,
    piece: Piece,
    compaction: Compaction | None,
) -> Record:
    if compaction is None:
        return per_prompt(config, params, masks, chosen(piece))
    parts = compaction.masks(masks)
    return per_prompt(config, params, parts, chosen(piece), compaction.segments)


@functools.partial(jax.jit, static_argnums=0)
def _narrow(config: ModelConfig, segments: Sequence[Segment], corrupted: Corrupted) -> Corrupted:
    return narrow_values(config, segments, corrupted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """A split whose plain passes are kept, recomputed batch by batch, or never kept.

    Attributes:
      model_config: the model's shape.
      params: its weights.
      batch: the split.
      where: its prompts' extents; from their first tokens if none are shared.
      kept: its plain passes; None if they are recomputed.
      base_logits: [N, V] if everything but these is recomputed beside each masked pass.
      compaction: what is left of the model; None for all of it.
      narrow: what is kept, of what is left of the model.
      stand_in: constants for pruned nodes; None for the corrupted run's values.
    """

    model_config: ModelConfig
    params: Params
    batch: Batch
    where: Extent
    kept: Streams | None = None
    base_logits: np.ndarray | None = None
    compaction: Compaction | None = None
    narrow: Streams | None = None
    stand_in: StandIn | None = None

    def compacted(self, compaction: Compaction) -> Prompts:
        """The same prompts for what is left of the model.

        What is kept of the whole model stays beside it, so that more can be left out later.

        Args:
          compaction: what is left.
        """
        narrow = None
        if self.kept is not None:
            on_host = isinstance(self.kept.base_logits, np.ndarray)
            cut = narrow_values if on_host else _narrow
            corrupted = cut(self.model_config, compaction.segments, self.kept.corrupted)
            narrow = dataclasses.replace(self.kept, corrupted=corrupted)  # type: ignore[type-var]
        return dataclasses.replace(self, compaction=compaction, narrow=narrow)

    def piece(self, rows: np.ndarray, sizes: Sizes) -> Piece:
        """Some prompts, ready for a step.

        Args:
          rows: [B] int32.
          sizes: of the arrays.
        """
        kept = self.narrow or self.kept
        if kept is not None:
            selection = self.where.select(rows, sizes)
            if isinstance(kept.base_logits, np.ndarray):
                return kept.take(selection), None
            return kept, selection
        batch = self.batch.take(rows)
        if self.base_logits is None:
            share = bool(self.where.starts.any())
            run = run_streams(
                *(self.model_config, self.params, batch, sizes),
                share_prefix=share,
                stand_in=self.stand_in,
            )
            if self.compaction is not None:
                corrupted = _narrow(self.model_config, self.compaction.segments, run.corrupted)
                run = dataclasses.replace(run, corrupted=corrupted)  # type: ignore[type-var]
            return run, None
        layout = self.where.layout(rows, sizes)
        clean, corrupted = packed_tokens(batch, layout)
        streams = Streams(
            layout=layout,
            clean=clean,
            corrupted=corrupted,
            base_logits=self.base_logits[rows],
            readouts=batch.readouts,
            choices=batch.choices,
            judge=batch.judge,
        )
        return streams, None

    def measure(self, masks: Masks, size: int) -> Record:
        """Metrics of a binary circuit on the whole split.

        Args:
          masks: bool arrays by granularity.
          size: prompts a piece.
        """
        chunks = list(chunk_rows(len(self.batch), size))
        sizes = self.where.sizes(rows for rows, _ in chunks)
        pieces = []
        for rows, real in chunks:
            piece = self.piece(rows, sizes)
            result = _measure(self.model_config, self.params, masks, piece, self.compaction)
            pieces.append((jax.device_get(result), real))
        return summarise(collect(pieces))


def keep_what_fits(
    model_config: ModelConfig,
    params: Params,
    splits: list[Batch],
    config: DiscoverConfig,
    stand_in: StandIn | None = None,
) -> list[Prompts]:
    """Computes the plain passes of splits once, as far as the settings and memory go.

    Args:
      model_config: the model's shape.
      params: its weights.
      splits: in order of importance.
      config: cache mode, memory budget and batch size.
      stand_in: constants for pruned nodes; None for the corrupted run's values.
    """
    budget = config.cache_gib * 2**30
    at_once = min(config.batch_size, len(splits[0])) // config.accumulate
    lockstep = config.cache == "off"
    share = config.share_prefix and not lockstep and stand_in is None
    extents = [extent(batch, share_prefix=share) for batch in splits]
    # One compilation for all splits, wherever their prefixes are as long.
    common = largest(
        where.sizes(rows for rows, _ in chunk_rows(len(batch), at_once))
        for batch, where in zip(splits, extents, strict=True)
    )
    prompts = []
    for batch, where in zip(splits, extents, strict=True):
        part = Prompts(
            model_config=model_config, params=params, batch=batch, where=where, stand_in=stand_in
        )
        need = stream_bytes(model_config, where)
        if config.cache == "dataset" or (config.cache == "auto" and need <= budget):
            budget -= need
            kept = prepare(
                *(model_config, params, batch, at_once, where),
                sizes=common._replace(prefix=int(where.starts.max())),
                host=config.cache_on == "host",
                stand_in=stand_in,
            )
            part = dataclasses.replace(part, kept=kept)
        elif lockstep:
            logits = base_logits(model_config, params, batch, at_once)
            part = dataclasses.replace(part, base_logits=logits)
        prompts.append(part)
    return prompts


def base_logits(model_config: ModelConfig, params: Params, batch: Batch, size: int) -> np.ndarray:
    """The full model's logits at the answer position, which no mask changes.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a piece.

    Returns:
      [N, V].
    """
    chunks = list(chunk_rows(len(batch), size))
    where = extent(batch, share_prefix=False)
    sizes = where.sizes(rows for rows, _ in chunks)
    found = []
    for rows, real in chunks:
        layout = where.layout(rows, sizes)
        clean, _ = packed_tokens(batch.take(rows), layout)
        found.append(np.asarray(answer_logits(model_config, params, clean, layout))[:real])
    return np.concatenate(found)
