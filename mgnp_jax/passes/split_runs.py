"""A split as a training loop reads it: plain passes kept, recomputed, or beside the masked one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.caching import Chunk, chunk_rows, joined, joined_bytes
from mgnp_jax.passes.compaction import Compaction, Segment, narrow_values
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.spans import Sizes, Spans, packed_tokens
from mgnp_jax.passes.storage import Room, lies_in_file, moved_to_file
from mgnp_jax.types import AblationValues, Batch, MgnpError, Params

AT_ONCE = 16
"""Prompts whose kept values are copied at a time."""


_taken = jax.jit(CachedRuns.take)


@functools.partial(jax.jit, static_argnums=0)
def _narrow(
    model_config: ModelConfig, segments: Sequence[Segment], corrupted: CorruptedRun
) -> CorruptedRun:
    return narrow_values(model_config, segments, corrupted)


@dataclasses.dataclass(frozen=True)
class SplitRuns:
    """A split whose plain passes are kept, recomputed batch by batch, or never kept.

    Attributes:
      model_config: the model's shape.
      params: its weights.
      batch: the split.
      spans: of its prompts; from their first tokens if none are shared.
      kept: its plain passes; None if they are recomputed.
      base_logits: [N, V] if everything but these is recomputed beside each masked pass.
      compaction: what is left of the model; None for all of it.
      narrow: what is kept, of what is left of the model.
      room: for `narrow`, beside `kept`.
      ablation_values: constants for pruned nodes; None for the corrupted run's values.
    """

    model_config: ModelConfig
    params: Params
    batch: Batch
    spans: Spans
    kept: CachedRuns | None = None
    base_logits: np.ndarray | None = None
    compaction: Compaction | None = None
    narrow: CachedRuns | None = None
    room: Room = Room(0, 0, 0)
    ablation_values: AblationValues | None = None

    def whole(self) -> SplitRuns:
        """The same for all of the model."""
        return dataclasses.replace(self, compaction=None, narrow=None)

    def compacted(self, compaction: Compaction) -> SplitRuns:
        """The same prompts for what is left of the model.

        What is kept of the whole model stays beside it, so that more can be left out later. Where
        there is no room for a copy, each batch is cut down when it is read.

        Args:
          compaction: what is left.
        """
        smaller = dataclasses.replace(self, compaction=compaction, narrow=None)
        if self.kept is None:
            return smaller
        return dataclasses.replace(smaller, narrow=self._narrow_copy(self.kept, compaction))

    def kept_in(self, kind: type) -> bool:
        """Whether anything is kept outside of files, as arrays of a kind.

        Args:
          kind: `np.ndarray` for the host's memory, `jax.Array` for the device's.
        """
        return any(isinstance(leaf, kind) and not lies_in_file(leaf) for leaf in self._leaves())

    def in_files(self, moved: dict[int, Any] | None = None) -> SplitRuns:
        """The same with all that is kept in files.

        Args:
          moved: arrays by the id of those that were moved; filled up, so that what several splits
            share is moved once. The splits must outlive it.

        Raises:
          MgnpError: if they cannot be made.
        """
        # So is what two parts of this one share.
        moved = {} if moved is None else moved

        def move(leaf: Any, axis: int) -> Any:
            if id(leaf) not in moved:
                moved[id(leaf)] = moved_to_file(leaf, axis)
            return moved[id(leaf)]

        kept, narrow = (of and of.with_each(move) for of in (self.kept, self.narrow))
        return dataclasses.replace(self, kept=kept, narrow=narrow, room=Room.all_in("disk"))

    def _leaves(self) -> list[Any]:
        kept = [(of.corrupted, of.base_logits) for of in (self.kept, self.narrow) if of is not None]
        return jax.tree.leaves(kept)

    def rows(self, rows: np.ndarray, sizes: Sizes) -> CachedRuns:
        """Some prompts, ready for a step.

        Args:
          rows: [B] int32.
          sizes: of the arrays.
        """
        kept = self.narrow or self.kept
        if kept is not None:
            # Compiled, host arrays would be copied over whole.
            take = _taken if kept.on_device else CachedRuns.take
            runs = take(kept, self.spans.select(rows, sizes))
            return runs if kept is self.narrow else self._narrowed(runs)
        if self.base_logits is not None:
            return self._lockstep(rows, sizes, self.base_logits)
        return self._narrowed(self._recomputed(rows, sizes))

    def _narrow_copy(self, kept: CachedRuns, compaction: Compaction) -> CachedRuns | None:
        """What is kept of what is left of the model; None if there is no room for it."""
        parts = self.spans.lengths - self.spans.starts
        stops = np.cumsum(parts)

        def chunks() -> Iterator[Chunk]:
            for rows, real in chunk_rows(len(self.batch), AT_ONCE):
                first, last = rows[0], rows[real - 1]
                tokens = slice(int(stops[first] - parts[first]), int(stops[last]))
                run = kept.between(tokens, slice(first, last + 1))
                run = narrow_values(self.model_config, compaction.segments, run)
                yield Chunk(run, None, tokens.stop - tokens.start, real)

        total, rest = (int(stops[-1]), len(self.batch)), chunks()
        first = next(rest)
        place = self.room.place_for(joined_bytes(first, *total))
        if place is None:
            return None
        if place == "device" and kept.on_device:
            assert isinstance(kept.corrupted, CorruptedRun)
            corrupted = _narrow(self.model_config, compaction.segments, kept.corrupted)
        else:
            try:
                _, corrupted = joined(itertools.chain([first], rest), *total, place)
            except MgnpError:
                # The disk has filled up since its room was counted, or was never counted.
                return None
        return dataclasses.replace(kept, corrupted=corrupted)  # type: ignore[type-var]

    def _narrowed(self, runs: CachedRuns) -> CachedRuns:
        """A batch of the whole model's values, of what is left of it."""
        if self.compaction is None:
            return runs
        corrupted = _narrow(self.model_config, self.compaction.segments, runs.corrupted)
        return dataclasses.replace(runs, corrupted=corrupted)  # type: ignore[type-var]

    def _recomputed(self, rows: np.ndarray, sizes: Sizes) -> CachedRuns:
        return plain_runs(
            *(self.model_config, self.params, self.batch.take(rows), sizes),
            share_prefix=bool(self.spans.starts.any()),
            ablation_values=self.ablation_values,
        )

    def _lockstep(self, rows: np.ndarray, sizes: Sizes, base_logits: np.ndarray) -> CachedRuns:
        batch, layout = self.batch.take(rows), self.spans.layout(rows, sizes)
        clean, corrupted = packed_tokens(batch, layout)
        return CachedRuns(
            layout=layout,
            clean=clean,
            corrupted=corrupted,
            base_logits=base_logits[rows],
            targets=batch.targets,
        )
