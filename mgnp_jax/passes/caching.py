"""Plain passes of a whole split, chunk by chunk: how much they take, and keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.mesh import on_host
from mgnp_jax.passes.budget import attention_bytes, kept_floats
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.node_forward import answer_logits
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.spans import Sizes, Spans, packed_tokens, spans_of
from mgnp_jax.passes.storage import Place, empty, put
from mgnp_jax.types import AblationValues, Batch, Params

CHUNK_BYTES = 2**28
"""Most bytes of values of prompts that are run to be measured."""

OnPrompts = Callable[[int], None]
"""Called with the number of prompts done since the last call."""


class Chunk(NamedTuple):
    """What is kept of some prompts.

    Attributes:
      run: of the corrupted prompts, in host memory, perhaps filled up at the end.
      base_logits: [≥ prompts, V]; None where they are kept already.
      tokens: how many of the run's are real.
      prompts: how many are real.
    """

    run: CorruptedRun
    base_logits: Any
    tokens: int
    prompts: int


def cache_bytes(model_config: ModelConfig, spans: Spans) -> int:
    """Memory that `cache_runs` of these prompts takes, in float32, tokens and layout aside.

    Args:
      model_config: the model's shape.
      spans: of N prompts.
    """
    c = model_config
    tokens = int((spans.lengths - spans.starts).sum())
    prefix = 2 * c.layers * int(spans.starts.max()) * c.kv_heads * c.head_width
    return 4 * (kept_floats(c, tokens) + len(spans.lengths) * (prefix + c.vocab_size))


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


def prompts_at_once(model_config: ModelConfig, spans: Spans) -> int:
    """How many prompts run together where none are kept: at most 64.

    Their values fit in a bound, and attention's scores and weights of one layer in as much again.

    Args:
      model_config: the model's shape.
      spans: of N prompts.
    """
    each = cache_bytes(model_config, spans) / len(spans.lengths)
    attention = 2 * attention_bytes(model_config, 1, int(spans.lengths.max()))
    return int(min(max(CHUNK_BYTES // max(each, attention), 1), 64))


def cache_runs(
    model_config: ModelConfig,
    params: Params,
    batch: Batch,
    size: int,
    spans: Spans,
    *,
    sizes: Sizes | None = None,
    place: Place = "device",
    ablation_values: AblationValues | None = None,
    on_prompts: OnPrompts = lambda prompts: None,
) -> CachedRuns:
    """Runs both plain passes on a whole split, chunk by chunk, and keeps the results.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a chunk.
      spans: of the prompts.
      sizes: of a chunk's arrays; just as large as needed by default.
      place: where they are kept; on the device as JAX's arrays, elsewhere as NumPy's.
      ablation_values: constants instead of the corrupted run's values, see `plain_runs`.
      on_prompts: told how it goes.

    Returns:
      Runs of N prompts, their tokens one prompt after another without gaps.
    """
    chunks = list(chunk_rows(len(batch), size))
    sizes = sizes or spans.sizes(rows for rows, _ in chunks)
    share = bool(spans.starts.any())
    parts = spans.lengths - spans.starts

    def found() -> Iterator[Chunk]:
        for rows, real in chunks:
            runs = plain_runs(
                *(model_config, params, batch.take(rows), sizes),
                share_prefix=share,
                ablation_values=ablation_values,
            )
            logits, run = on_host((runs.base_logits, runs.corrupted))
            yield Chunk(run, logits, int(parts[rows[:real]].sum()), real)
            on_prompts(real)

    base_logits, corrupted = joined(found(), int(parts.sum()), len(batch), place)
    everything = np.arange(len(batch))
    layout = spans.layout(everything, spans.sizes([everything]))
    return CachedRuns(
        layout=layout,
        clean=packed_tokens(batch, layout)[0],
        corrupted=corrupted,
        base_logits=base_logits,
        targets=batch.targets,
    )


def joined(
    chunks: Iterable[Chunk], tokens: int, prompts: int, place: Place
) -> tuple[Any, CorruptedRun]:
    """Chunks one after another, each put where it stays as it comes.

    Args:
      chunks: at least one.
      tokens: of all.
      prompts: of all.
      place: where they are kept.

    Returns:
      Logits [N, V], or None; the corrupted run.
    """
    # Which axis goes along what is real: site values and prefixes have the layers before it.
    axes: list[tuple[int, int]] = []
    kept: list[Any] = []
    structure: Any = None
    at = np.zeros(2, int)
    for chunk in chunks:
        step = np.array([chunk.tokens, chunk.prompts])
        leaves = jax.tree.leaves((chunk.base_logits, chunk.run))
        if structure is None:
            structure = jax.tree.structure((chunk.base_logits, chunk.run))
            axes = _axes(chunk)
            kept = [
                empty(
                    leaf.shape[:axis] + ((tokens, prompts)[of],) + leaf.shape[axis + 1 :],
                    leaf.dtype,
                    place,
                )
                for leaf, (axis, of) in zip(leaves, axes, strict=True)
            ]
        for i, (leaf, (axis, of)) in enumerate(zip(leaves, axes, strict=True)):
            kept[i] = put(kept[i], leaf, int(at[of]), int(step[of]), axis)
        at += step
    return jax.tree.unflatten(structure, kept)


def joined_bytes(chunk: Chunk, tokens: int, prompts: int) -> int:
    """What `joined` will take.

    Args:
      chunk: any of them.
      tokens: of all.
      prompts: of all.
    """
    leaves = jax.tree.leaves((chunk.base_logits, chunk.run))
    total = (tokens, prompts)
    return sum(
        leaf.nbytes // max(leaf.shape[axis], 1) * total[of]
        for leaf, (axis, of) in zip(leaves, _axes(chunk), strict=True)
    )


def _axes(chunk: Chunk) -> list[tuple[int, int]]:
    """Of each leaf: the axis along which chunks are joined; whether by tokens (0) or prompts."""
    run = chunk.run
    marked = (
        jax.tree.map(lambda _: (0, 1), chunk.base_logits),
        CorruptedRun(
            embedding=(0, 0),  # type: ignore[arg-type]
            values=jax.tree.map(lambda _: (1, 0), run.values),
            prefix=jax.tree.map(lambda _: (1, 1), run.prefix),
        ),
    )
    return jax.tree.leaves(marked, is_leaf=lambda leaf: leaf in ((0, 0), (0, 1), (1, 0), (1, 1)))


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
        found.append(on_host(answer_logits(model_config, params, clean, layout))[:real])
    return np.concatenate(found)
