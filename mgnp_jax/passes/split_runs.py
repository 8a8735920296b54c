"""A split as a training loop reads it: plain passes kept where they fit, recomputed where not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.caching import cache_bytes, cache_logits, cache_runs, chunk_rows
from mgnp_jax.passes.compaction import Compaction, Segment, narrow_values
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.spans import Selection, Sizes, Spans, largest, packed_tokens, spans_of
from mgnp_jax.types import AblationValues, Batch, Params

BatchRuns = tuple[CachedRuns, Selection | None]
"""What a step reads: plain passes, and which part of them (None: all)."""


def selected(runs: BatchRuns) -> CachedRuns:
    """The plain passes of a batch; inside a compiled function, where picking them is free.

    Args:
      runs: plain passes, and which part of them; with leading axes of parts and devices, or
        without.
    """
    cached, selection = runs
    if selection is None:
        return cached
    take = cached.take
    for _ in range(selection.rows.ndim - 1):
        take = jax.vmap(take)
    return take(selection)


@functools.partial(jax.jit, static_argnums=0)
def _narrow(
    model_config: ModelConfig, segments: Sequence[Segment], corrupted: CorruptedRun
) -> CorruptedRun:
    return narrow_values(model_config, segments, corrupted)


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    ablation_values: AblationValues | None = None

    def compacted(self, compaction: Compaction) -> SplitRuns:
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

    def rows(self, rows: np.ndarray, sizes: Sizes) -> BatchRuns:
        """Some prompts, ready for a step.

        Args:
          rows: [B] int32.
          sizes: of the arrays.
        """
        kept = self.narrow or self.kept
        if kept is not None:
            selection = self.spans.select(rows, sizes)
            if isinstance(kept.base_logits, np.ndarray):
                return kept.take(selection), None
            return kept, selection
        if self.base_logits is not None:
            return self._lockstep(rows, sizes, self.base_logits), None
        return self._recomputed(rows, sizes), None

    def _recomputed(self, rows: np.ndarray, sizes: Sizes) -> CachedRuns:
        runs = plain_runs(
            *(self.model_config, self.params, self.batch.take(rows), sizes),
            share_prefix=bool(self.spans.starts.any()),
            ablation_values=self.ablation_values,
        )
        if self.compaction is None:
            return runs
        corrupted = _narrow(self.model_config, self.compaction.segments, runs.corrupted)
        return dataclasses.replace(runs, corrupted=corrupted)  # type: ignore[type-var]

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


def keep_what_fits(
    model_config: ModelConfig,
    params: Params,
    splits: list[Batch],
    batch_size: int,
    execution: Execution,
    ablation_values: AblationValues | None = None,
) -> list[SplitRuns]:
    """Computes the plain passes of splits once, as far as the settings and memory go.

    Args:
      model_config: the model's shape.
      params: its weights.
      splits: in order of importance.
      batch_size: prompts a step.
      execution: cache mode and memory budget.
      ablation_values: constants for pruned nodes; None for the corrupted run's values.
    """
    budget = execution.cache_gib * 2**30
    at_once = min(batch_size, len(splits[0])) // execution.accumulate
    share = execution.share_prefix and not execution.lockstep and ablation_values is None
    spans = [spans_of(batch, share_prefix=share) for batch in splits]
    # One compilation for all splits, wherever their prefixes are as long.
    common = largest(
        each.sizes(rows for rows, _ in chunk_rows(len(batch), at_once))
        for batch, each in zip(splits, spans, strict=True)
    )
    found = []
    for batch, each in zip(splits, spans, strict=True):
        kept = logits = None
        need = cache_bytes(model_config, each)
        if execution.cache == "dataset" or (execution.cache == "auto" and need <= budget):
            budget -= need
            kept = cache_runs(
                *(model_config, params, batch, at_once, each),
                sizes=common._replace(prefix=int(each.starts.max())),
                host=execution.cache_on == "host",
                ablation_values=ablation_values,
            )
        elif execution.lockstep:
            logits = cache_logits(model_config, params, batch, at_once)
        found.append(
            SplitRuns(
                model_config=model_config,
                params=params,
                batch=batch,
                spans=each,
                kept=kept,
                base_logits=logits,
                ablation_values=ablation_values,
            )
        )
    return found
