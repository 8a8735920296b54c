"""Plain passes of a whole split, chunk by chunk: how much memory they take, and keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.node_forward import answer_logits
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.spans import Sizes, Spans, packed_tokens, spans_of
from mgnp_jax.types import AblationValues, Batch, Params


def cache_bytes(model_config: ModelConfig, spans: Spans) -> int:
    """Memory that `cache_runs` of these prompts takes, in float32, tokens and layout aside.

    Args:
      model_config: the model's shape.
      spans: of N prompts.
    """
    c = model_config
    tokens = int((spans.lengths - spans.starts).sum())
    site = c.heads * c.head_width + c.mlp_width + (4 if c.norm_after else 2) * c.width
    prefix = 2 * c.layers * int(spans.starts.max()) * c.kv_heads * c.head_width
    per_token = c.layers * site + c.width
    return 4 * (tokens * per_token + len(spans.lengths) * (prefix + c.vocab_size))


def chunk_rows(prompts: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts rows into chunks of one length, so that one compilation serves all.

    Args:
      prompts: N.
      size: rows a chunk, if there are as many.

    Yields:
      [size] int32 rows (the last chunk is filled up with the first rows again), and how
      many of them are real.
    """
    size = min(size, prompts)
    for start in range(0, prompts, size):
        rows = np.arange(start, start + size, dtype=np.int32) % prompts
        yield rows, min(size, prompts - start)


def cache_runs(
    model_config: ModelConfig,
    params: Params,
    batch: Batch,
    size: int,
    spans: Spans,
    *,
    sizes: Sizes | None = None,
    host: bool = False,
    ablation_values: AblationValues | None = None,
) -> CachedRuns:
    """Runs both plain passes on a whole split, chunk by chunk, and keeps the results.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a chunk.
      spans: of the prompts.
      sizes: of a chunk's arrays; just as large as needed by default.
      host: keep them as numpy arrays instead of on the device.
      ablation_values: constants instead of the corrupted run's values, see `plain_runs`.

    Returns:
      Runs of N prompts, their tokens one prompt after another without gaps.
    """
    chunks = list(chunk_rows(len(batch), size))
    sizes = sizes or spans.sizes(rows for rows, _ in chunks)
    share = bool(spans.starts.any())
    parts = spans.lengths - spans.starts
    kept = []
    for rows, real in chunks:
        runs = plain_runs(
            *(model_config, params, batch.take(rows), sizes),
            share_prefix=share,
            ablation_values=ablation_values,
        )
        kept.append(_real_rows(runs, real, int(parts[rows[:real]].sum())))
    base_logits, corrupted = _joined(kept, host)
    everything = np.arange(len(batch))
    layout = spans.layout(everything, spans.sizes([everything]))
    return CachedRuns(
        layout=layout,
        clean=packed_tokens(batch, layout)[0],
        corrupted=corrupted,
        base_logits=base_logits,
        targets=batch.targets,
    )


def _real_rows(runs: CachedRuns, prompts: int, tokens: int) -> tuple[Any, CorruptedRun]:
    """Logits and corrupted run of the first prompts and tokens, in host memory."""
    # Cut there: each number of tokens would be one more compilation.
    logits, run = jax.device_get((runs.base_logits, runs.corrupted))
    return logits[:prompts], CorruptedRun(
        embedding=run.embedding[:tokens],
        values=jax.tree.map(lambda leaf: leaf[:, :tokens], run.values),
        prefix=jax.tree.map(lambda leaf: leaf[:, :prompts], run.prefix),
    )


def _joined(kept: list[tuple[Any, CorruptedRun]], host: bool) -> tuple[Any, CorruptedRun]:
    """All chunks one after another; empties the list."""
    # Leaf by leaf, each freed once it is joined, so that no two copies of all stand side by
    # side. Site values and prefixes have the layer axis before the prompts'.
    structure = jax.tree.structure(kept[0])
    leaves: list[Any] = [list(column) for column in zip(*map(jax.tree.leaves, kept))]
    kept.clear()
    for i in range(len(leaves)):
        leaves[i] = np.concatenate(leaves[i], axis=0 if i < 2 else 1)
        if not host:
            leaves[i] = jax.device_put(leaves[i])
    return jax.tree.unflatten(structure, leaves)


def cache_logits(model_config: ModelConfig, params: Params, batch: Batch, size: int) -> np.ndarray:
    """The full model's logits at the answer position, which no mask changes.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a chunk.

    Returns:
      [N, V].
    """
    chunks = list(chunk_rows(len(batch), size))
    spans = spans_of(batch, share_prefix=False)
    sizes = spans.sizes(rows for rows, _ in chunks)
    found = []
    for rows, real in chunks:
        layout = spans.layout(rows, sizes)
        clean, _ = packed_tokens(batch.take(rows), layout)
        found.append(np.asarray(answer_logits(model_config, params, clean, layout))[:real])
    return np.concatenate(found)
