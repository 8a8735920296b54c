"""What the masks cannot change, computed once: the two plain passes of a set of prompts."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.metrics.extent import Extent, Selection, Sizes, extent, packed_tokens
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.ends import unembed
from mgnp_jax.models.forward import lockstep_residual, masked_residual, plain_passes
from mgnp_jax.models.nodes import Corrupted
from mgnp_jax.models.packing import Layout, pack
from mgnp_jax.models.segments import Segment
from mgnp_jax.types import Batch, Masks, Params, Readout, StandIn


@struct.dataclass
class Streams:
    """Prompts, packed from where a pair differs, with what both plain passes say of them.

    Attributes:
      layout: K tokens of B prompts.
      clean: [K] their ids.
      corrupted: the corrupted run's values of these tokens; or its ids [K], whose values are
        then computed beside the masked run.
      base_logits: [B, V] full model on clean prompts, at the answer position.
      readouts: the prompts' scores by name.
      choices: [B, C] tokens by name of the KL over them.
      judge: which readout says who won.
    """

    layout: Layout
    clean: Any
    corrupted: Corrupted | Any
    base_logits: Any
    readouts: dict[str, Readout]
    choices: dict[str, Any]
    judge: str = struct.field(pytree_node=False)

    def take(self, chosen: Selection) -> Streams:
        """Selects prompts.

        Args:
          chosen: which.
        """
        assert isinstance(self.corrupted, Corrupted)
        rows, tokens = chosen.rows, chosen.tokens
        corrupted = Corrupted(
            embedding=self.corrupted.embedding[tokens],
            values=jax.tree.map(lambda leaf: leaf[:, tokens], self.corrupted.values),
            prefix=jax.tree.map(lambda leaf: leaf[:, rows], self.corrupted.prefix),
        )
        return Streams(
            layout=chosen.layout,
            clean=self.clean[tokens],
            corrupted=corrupted,
            base_logits=self.base_logits[rows],
            readouts=jax.tree.map(lambda leaf: leaf[rows], self.readouts),
            choices=jax.tree.map(lambda leaf: leaf[rows], self.choices),
            judge=self.judge,
        )


def run_streams(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    sizes: Sizes | None = None,
    *,
    share_prefix: bool = True,
    stand_in: StandIn | None = None,
) -> Streams:
    """Runs both plain passes on a batch.

    Args:
      config: the model's shape.
      params: its weights.
      batch: [B, T] prompts.
      sizes: of the arrays; just as large as needed by default.
      share_prefix: whether tokens in which no pair differs yet are left to the prefix.
      stand_in: constants to use for the corrupted run's values; then no prefix is shared,
        because a pruned node differs from the clean run from the first token on.
    """
    share_prefix = share_prefix and stand_in is None
    where = extent(batch, share_prefix=share_prefix)
    everything = np.arange(len(batch))
    sizes = sizes or where.sizes([everything])
    whole = pack(
        where.lengths,
        0 * where.starts,
        tokens=sizes.whole,
        positions=batch.clean.shape[1],
    )
    layout = where.layout(everything, sizes)
    first = np.cumsum(where.lengths) - where.lengths
    chosen = np.where(layout.used, first[layout.prompts] + layout.positions, 0)
    before = np.where(layout.prefix, first[:, None] + np.arange(sizes.prefix)[None], 0)
    tokens = packed_tokens(batch, whole)
    logits, corrupted = _run(config, params, tokens, whole, chosen, before, stand_in)
    return Streams(
        layout=layout,
        clean=packed_tokens(batch, layout)[0],
        corrupted=corrupted,
        base_logits=logits,
        readouts=batch.readouts,
        choices=batch.choices,
        judge=batch.judge,
    )


@functools.partial(jax.jit, static_argnums=0)
def _run(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    whole: Layout,
    chosen: jax.Array,
    before: jax.Array,
    stand_in: StandIn | None,
) -> tuple[jax.Array, Corrupted]:
    """Both plain passes on whole prompts [2, K'], then the chosen [K] and prefix [B, P]."""
    logits, run = plain_passes(config, params, tokens, whole)
    embedding = run.embedding[chosen]
    values = jax.tree.map(lambda leaf: leaf[:, chosen], run.values)
    if stand_in is not None:
        dtype = embedding.dtype
        embedding = jnp.broadcast_to(stand_in["embedding"].astype(dtype)[None], embedding.shape)
        sites = {
            name: jnp.broadcast_to(leaf.astype(dtype)[:, None], getattr(values, name).shape)
            for name, leaf in stand_in.items()
            if name != "embedding"
        }
        values = values.replace(**sites)
    return logits, Corrupted(
        embedding=embedding,
        values=(values,),
        prefix=((run.keys[:, before], run.attended[:, before]),),
    )


def masked_logits(
    config: ModelConfig,
    params: Params,
    masks: Masks | Sequence[Masks],
    streams: Streams,
    *,
    segments: Sequence[Segment] | None = None,
    remat: bool = False,
) -> jax.Array:
    """The circuit's logits at the answer position.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity; for each segment, if there are any.
      streams: B prompts with their plain passes.
      segments: the layers without nodes closed for good; None for the whole model.
      remat: recompute a layer's inner values in the gradient instead of keeping them.

    Returns:
      [B, V]; the unembedding is computed at that one position.
    """
    clean, other, layout = streams.clean, streams.corrupted, streams.layout
    parts = [masks] if isinstance(masks, dict) else masks
    if isinstance(other, Corrupted):
        residual = masked_residual(
            config, params, parts, clean, other, layout, segments=segments, remat=remat
        )
    else:
        assert segments is None, "beside the corrupted run the whole model runs"
        (whole,) = parts
        residual = lockstep_residual(config, params, whole, clean, other, layout, remat=remat)
    return unembed(config, params, residual[layout.answers])


def stream_bytes(config: ModelConfig, where: Extent) -> int:
    """Memory that `prepare` of these prompts takes, in float32, tokens and layout aside.

    Args:
      config: the model's shape.
      where: N prompts are packed from.
    """
    tokens = int((where.lengths - where.starts).sum())
    site = config.heads * config.head_width + config.mlp_width + 2 * config.width
    prefix = 2 * config.layers * int(where.starts.max()) * config.kv_heads * config.head_width
    per_token = config.layers * site + config.width
    return 4 * (tokens * per_token + len(where.lengths) * (prefix + config.vocab_size))


def chunk_rows(prompts: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts rows into pieces of one length, so that one compilation serves all.

    Args:
      prompts: N.
      size: rows a piece, if there are as many.

    Yields:
      [size] int32 rows (the last piece is filled up with the first rows again), and how
      many of them are real.
    """
    size = min(size, prompts)
    for start in range(0, prompts, size):
        rows = np.arange(start, start + size, dtype=np.int32) % prompts
        yield rows, min(size, prompts - start)


def prepare(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    size: int,
    where: Extent,
    *,
    sizes: Sizes | None = None,
    host: bool = False,
    stand_in: StandIn | None = None,
) -> Streams:
    """Runs both plain passes on a whole split, piece by piece, and keeps the results.

    Args:
      config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a piece.
      where: they are packed from.
      sizes: of a piece's arrays; just as large as needed by default.
      host: keep them as numpy arrays instead of on the device.
      stand_in: constants instead of the corrupted run's values, see `run_streams`.

    Returns:
      Streams of N prompts, their tokens one prompt after another without gaps.
    """
    pieces = list(chunk_rows(len(batch), size))
    sizes = sizes or where.sizes(rows for rows, _ in pieces)
    parts = where.lengths - where.starts
    share = bool(where.starts.any())
    kept = []
    for rows, real in pieces:
        piece = batch.take(rows)
        streams = run_streams(config, params, piece, sizes, share_prefix=share, stand_in=stand_in)
        tokens = slice(int(parts[rows[:real]].sum()))
        run = streams.corrupted
        # Cut in host memory: each number of tokens would be one more compilation.
        whole = (streams.base_logits, run.embedding, run.values, run.prefix)
        logits, embedding, values, prefix = jax.device_get(whole)
        kept.append(
            (
                logits[:real],
                embedding[tokens],
                jax.tree.map(lambda leaf, t=tokens: leaf[:, t], values),
                jax.tree.map(lambda leaf, n=real: leaf[:, :n], prefix),
            )
        )
    # Joined leaf by leaf, each freed once it is, so that no two copies of all stand side by
    # side. Site values and prefixes have the layer axis before the prompts'.
    structure = jax.tree.structure(kept[0])
    leaves: list[Any] = [list(column) for column in zip(*map(jax.tree.leaves, kept))]
    del kept, whole, logits, embedding, values, prefix
    for i in range(len(leaves)):
        leaves[i] = np.concatenate(leaves[i], axis=0 if i < 2 else 1)
        if not host:
            leaves[i] = jax.device_put(leaves[i])
    base_logits, embedding, values, prefix = jax.tree.unflatten(structure, leaves)
    everything = np.arange(len(batch))
    layout = where.layout(everything, where.sizes([everything]))
    return Streams(
        layout=layout,
        clean=packed_tokens(batch, layout)[0],
        corrupted=Corrupted(embedding=embedding, values=values, prefix=prefix),
        base_logits=base_logits,
        readouts=batch.readouts,
        choices=batch.choices,
        judge=batch.judge,
    )
