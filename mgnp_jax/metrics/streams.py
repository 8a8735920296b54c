"""What the masks cannot change, computed once: the two plain passes of a set of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.forward import at_answer, masked_residual, plain_passes, unembed
from mgnp_jax.models.nodes import SiteValues
from mgnp_jax.types import Batch, Masks, Params


@struct.dataclass
class Streams:
    """A batch with what both plain passes say about it.

    Attributes:
      batch: [B, T] the prompts.
      base_logits: [B, V] full model on clean prompts, at the answer position.
      corrupted: embedding [B, T, D] and site values [L, B, T, …] of the corrupted run.
    """

    batch: Batch
    base_logits: jax.Array
    corrupted: tuple[jax.Array, SiteValues]

    def take(self, rows: jax.Array) -> Streams:
        """Selects prompts.

        Args:
          rows: [K] int.
        """
        embedding, values = self.corrupted
        return Streams(
            batch=self.batch.take(rows),
            base_logits=self.base_logits[rows],
            corrupted=(embedding[rows], jax.tree.map(lambda leaf: leaf[:, rows], values)),
        )


def run_streams(config: ModelConfig, params: Params, batch: Batch) -> Streams:
    """Runs both plain passes on a batch.

    Args:
      config: the model's shape.
      params: its weights.
      batch: [B, T] prompts.
    """
    logits, corrupted = plain_passes(config, params, batch.streams, batch.attention_mask)
    return Streams(batch=jax.tree.map(jnp.asarray, batch), base_logits=logits, corrupted=corrupted)


def masked_logits(config: ModelConfig, params: Params, masks: Masks, streams: Streams) -> jax.Array:
    """The circuit's logits at the answer position.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      streams: B prompts with their plain passes.

    Returns:
      [B, V]; the unembedding is computed at that one position.
    """
    batch = streams.batch
    residual = masked_residual(
        config, params, masks, batch.clean, streams.corrupted, batch.attention_mask
    )
    return unembed(config, params, at_answer(residual, batch.attention_mask))


def stream_bytes(config: ModelConfig, batch: Batch) -> int:
    """Memory that `Streams` of this batch takes, in float32.

    Args:
      config: the model's shape.
      batch: [B, T] prompts.
    """
    prompts, positions = batch.clean.shape
    site = config.heads * config.head_width + config.mlp_width + 2 * config.width
    per_prompt = positions * (config.layers * site + config.width) + config.vocab_size
    return 4 * prompts * per_prompt


def chunk_rows(prompts: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts rows into pieces of one length, so that one compilation serves all.

    Args:
      prompts: N.
      size: rows a piece, if there are as many.

    Yields:
      [size] int32 rows (the last piece is filled up with its own last row), and how many
      of them are real.
    """
    size = min(size, prompts)
    for start in range(0, prompts, size):
        rows = np.minimum(np.arange(start, start + size, dtype=np.int32), prompts - 1)
        yield rows, min(size, prompts - start)


def prepare(config: ModelConfig, params: Params, batch: Batch, size: int) -> Streams:
    """Runs both plain passes on a whole split, piece by piece, and keeps the results.

    Args:
      config: the model's shape.
      params: its weights.
      batch: N prompts.
      size: prompts a piece.

    Returns:
      Streams of N prompts.
    """
    kept = [
        run_streams(config, params, batch.take(rows)).take(jnp.arange(real))
        for rows, real in chunk_rows(len(batch), size)
    ]
    # Joined leaf by leaf, each freed once it is, so that no two copies of all stand side by
    # side. Site values have the layer axis before the prompts'.
    structure = jax.tree.structure(kept[0].corrupted)
    parts: list[Any] = [list(leaves) for leaves in zip(*map(_leaves, kept))]
    base_logits = jnp.concatenate([piece.base_logits for piece in kept])
    del kept
    for i in range(len(parts)):
        parts[i] = jnp.concatenate(parts[i], axis=0 if i == 0 else 1)
    return Streams(
        batch=jax.tree.map(jnp.asarray, batch),
        base_logits=base_logits,
        corrupted=jax.tree.unflatten(structure, parts),
    )


def _leaves(streams: Streams) -> list[jax.Array]:
    """The embedding, then the site values."""
    return jax.tree.leaves(streams.corrupted)
