"""What the masks cannot change, computed once: the two plain passes of a set of prompts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.compaction import Segment
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_forward import lockstep_residual, masked_residual, plain_passes
from mgnp_jax.passes.node_values import CorruptedRun, SiteValues
from mgnp_jax.passes.packing import Layout, pack
from mgnp_jax.passes.spans import Selection, Sizes, Spans, packed_tokens, spans_of
from mgnp_jax.passes.storage import copied, some
from mgnp_jax.types import AblationValues, Batch, Masks, Params, Targets


@struct.dataclass
class CachedRuns:
    """Prompts, packed from where a pair differs, with what both plain passes say of them.

    Attributes:
      layout: K tokens of B prompts.
      clean: [K] their ids.
      corrupted: the corrupted run's values of these tokens; or its ids [K], whose values are
        then computed beside the masked run.
      base_logits: [B, V] full model on clean prompts, at the answer position.
      targets: the prompts' answers.
    """

    layout: Layout
    clean: Any
    corrupted: CorruptedRun | Any
    base_logits: Any
    targets: Targets

    @property
    def on_device(self) -> bool:
        """Whether all values are JAX's own arrays."""
        leaves = jax.tree.leaves((self.corrupted, self.base_logits))
        return all(isinstance(leaf, jax.Array) for leaf in leaves)

    def take(self, chosen: Selection) -> CachedRuns:
        """Selects prompts.

        Args:
          chosen: which.
        """
        assert isinstance(self.corrupted, CorruptedRun)
        rows, tokens = chosen.rows, chosen.tokens
        corrupted = CorruptedRun(
            embedding=some(self.corrupted.embedding, tokens, 0),
            values=jax.tree.map(lambda leaf: some(leaf, tokens, 1), self.corrupted.values),
            prefix=jax.tree.map(lambda leaf: some(leaf, rows, 1), self.corrupted.prefix),
        )
        return CachedRuns(
            layout=chosen.layout,
            clean=self.clean[tokens],
            corrupted=corrupted,
            base_logits=some(self.base_logits, rows, 0),
            targets=jax.tree.map(lambda leaf: leaf[rows], self.targets),
        )

    def between(self, tokens: slice, prompts: slice) -> CorruptedRun:
        """A copy of the corrupted run of consecutive prompts, in host memory.

        Args:
          tokens: theirs.
          prompts: which.
        """
        assert isinstance(self.corrupted, CorruptedRun)
        run = self.corrupted
        return run.replace(  # type: ignore[attr-defined]
            embedding=copied(run.embedding, tokens, 0),
            values=jax.tree.map(lambda leaf: copied(leaf, tokens, 1), run.values),
            prefix=jax.tree.map(lambda leaf: copied(leaf, prompts, 1), run.prefix),
        )

    def with_each(self, change: Callable[[Any, int], Any]) -> CachedRuns:
        """The same with every kept array changed.

        Args:
          change: given an array and its axis of tokens or prompts.
        """
        assert isinstance(self.corrupted, CorruptedRun)
        run = self.corrupted
        changed = run.replace(  # type: ignore[attr-defined]
            embedding=change(run.embedding, 0),
            values=jax.tree.map(lambda leaf: change(leaf, 1), run.values),
            prefix=jax.tree.map(lambda leaf: change(leaf, 1), run.prefix),
        )
        logits = change(self.base_logits, 0)
        return self.replace(corrupted=changed, base_logits=logits)  # type: ignore[attr-defined]


def plain_runs(
    model_config: ModelConfig,
    params: Params,
    batch: Batch,
    sizes: Sizes | None = None,
    *,
    share_prefix: bool = True,
    ablation_values: AblationValues | None = None,
) -> CachedRuns:
    """Runs both plain passes on a batch.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: [B, T] prompts.
      sizes: of the arrays; just as large as needed by default.
      share_prefix: whether tokens in which no pair differs yet are left to the prefix.
      ablation_values: constants to use for the corrupted run's values; then no prefix is shared,
        because a pruned node differs from the clean run from the first token on.
    """
    share_prefix = share_prefix and ablation_values is None
    spans = spans_of(batch, share_prefix=share_prefix)
    return _both_runs(model_config, params, batch, spans, sizes, ablation_values, False)[0]


def both_runs(
    model_config: ModelConfig,
    params: Params,
    batch: Batch,
    sizes: Sizes | None = None,
    *,
    ablation_values: AblationValues | None = None,
) -> tuple[CachedRuns, SiteValues]:
    """`plain_runs`, and the full model's values of the clean tokens, which it is run for anyway.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: [B, T] prompts.
      sizes: of the arrays; just as large as needed by default.
      ablation_values: as of `plain_runs`.

    Returns:
      The runs of K tokens; [L, K, …] node values.
    """
    spans = spans_of(batch, share_prefix=ablation_values is None)
    runs, clean = _both_runs(model_config, params, batch, spans, sizes, ablation_values, True)
    assert clean is not None
    return runs, clean


def _both_runs(
    model_config: ModelConfig,
    params: Params,
    batch: Batch,
    spans: Spans,
    sizes: Sizes | None,
    ablation_values: AblationValues | None,
    clean_values: bool,
) -> tuple[CachedRuns, SiteValues | None]:
    everything = np.arange(len(batch))
    sizes = sizes or spans.sizes([everything])
    whole = pack(
        spans.lengths,
        0 * spans.starts,
        tokens=sizes.whole,
        positions=batch.clean.shape[1],
    )
    layout = spans.layout(everything, sizes)
    first = np.cumsum(spans.lengths) - spans.lengths
    chosen = np.where(layout.used, first[layout.prompts] + layout.positions, 0)
    before = np.where(layout.prefix, first[:, None] + np.arange(sizes.prefix)[None], 0)
    tokens = packed_tokens(batch, whole)
    logits, corrupted, values = _run(
        *(model_config, clean_values, params, tokens, whole, chosen, before, ablation_values)
    )
    runs = CachedRuns(
        layout=layout,
        clean=packed_tokens(batch, layout)[0],
        corrupted=corrupted,
        base_logits=logits,
        targets=batch.targets,
    )
    return runs, values


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(
    model_config: ModelConfig,
    clean_values: bool,
    params: Params,
    tokens: jax.Array,
    whole: Layout,
    chosen: jax.Array,
    before: jax.Array,
    ablation_values: AblationValues | None,
) -> tuple[jax.Array, CorruptedRun, SiteValues | None]:
    """Both plain passes on whole prompts [2, K'], then the chosen [K] and prefix [B, P]."""
    logits, run, clean = plain_passes(
        model_config, params, tokens, whole, chosen, before, clean_values=clean_values
    )
    if ablation_values is None:
        return logits, run, clean
    dtype = run.embedding.dtype
    ((values,), embedding) = run.values, ablation_values["embedding"]
    sites = {
        name: jnp.broadcast_to(leaf.astype(dtype)[:, None], getattr(values, name).shape)
        for name, leaf in ablation_values.items()
        if name != "embedding"
    }
    constant = CorruptedRun(
        embedding=jnp.broadcast_to(embedding.astype(dtype)[None], run.embedding.shape),
        values=(values.replace(**sites),),
        prefix=run.prefix,
    )
    return logits, constant, clean


def masked_logits(
    model_config: ModelConfig,
    params: Params,
    masks: Masks | Sequence[Masks],
    runs: CachedRuns,
    *,
    segments: Sequence[Segment] | None = None,
    remat: bool = False,
) -> jax.Array:
    """The circuit's logits at the answer position.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity; for each segment, if there are any.
      runs: B prompts with their plain passes.
      segments: the layers without nodes closed for good; None for the whole model.
      remat: recompute a layer's inner values in the gradient instead of keeping them.

    Returns:
      [B, V]; the unembedding is computed at that one position.
    """
    clean, other, layout = runs.clean, runs.corrupted, runs.layout
    parts = [masks] if isinstance(masks, dict) else masks
    if isinstance(other, CorruptedRun):
        residual = masked_residual(
            model_config, params, parts, clean, other, layout, segments=segments, remat=remat
        )
    else:
        assert segments is None, "beside the corrupted run the whole model runs"
        (whole,) = parts
        residual = lockstep_residual(model_config, params, whole, clean, other, layout, remat=remat)
    return unembed(model_config, params, residual[layout.answers])
