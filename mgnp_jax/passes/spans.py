"""Spans: where the prompts of a pair begin to differ and end; how batches of them are packed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from flax import struct

from mgnp_jax.passes.packing import Layout, pack
from mgnp_jax.types import Batch

ROUND = 16
"""Packed rows are filled up to a multiple of so many tokens: prompts of another seed then
mostly have the same array sizes, and what was compiled for one serves the other. Changes no
figure but by rounding."""


@struct.dataclass
class Selection:
    """Some prompts of kept streams.

    Attributes:
      layout: K tokens of the B prompts.
      rows: [B] int32 which prompts.
      tokens: [K] int32 which of the kept tokens.
    """

    layout: Layout
    rows: Any
    tokens: Any


class Sizes(NamedTuple):
    """Array sizes that serve several batches, so that one compilation serves them all.

    Attributes:
      whole: tokens of whole prompts.
      tokens: K, tokens from where a pair differs.
      positions: T of the grid.
      prefix: P, most tokens before the first difference.
    """

    whole: int
    tokens: int
    positions: int
    prefix: int


def largest(sizes: Iterable[Sizes]) -> Sizes:
    """Array sizes that serve whatever each of several would serve.

    Args:
      sizes: at least one.
    """
    return Sizes(*(max(of) for of in zip(*sizes, strict=True)))


class Spans(NamedTuple):
    """Where prompts begin to differ and where they end.

    Attributes:
      lengths: [N] tokens.
      starts: [N] first token in which clean and corrupted differ.
    """

    lengths: np.ndarray
    starts: np.ndarray

    def sizes(self, groups: Iterable[np.ndarray]) -> Sizes:
        """What each of some batches fits in.

        Args:
          groups: [B] rows of each batch.
        """
        groups = list(groups)
        parts = self.lengths - self.starts

        def most(values: np.ndarray) -> int:
            count = max(int(values[rows].sum()) for rows in groups)
            return -(-count // ROUND) * ROUND

        return Sizes(most(self.lengths), most(parts), int(parts.max()), int(self.starts.max()))

    def layout(self, rows: np.ndarray, sizes: Sizes) -> Layout:
        """Packs some prompts from where they differ.

        Args:
          rows: [B].
          sizes: of the arrays.
        """
        return pack(
            self.lengths[rows],
            self.starts[rows],
            tokens=sizes.tokens,
            positions=sizes.positions,
            prefix=sizes.prefix,
        )

    def select(self, rows: np.ndarray, sizes: Sizes) -> Selection:
        """Prompts of streams that hold all N, one after another.

        Args:
          rows: [B].
          sizes: of the arrays.
        """
        parts = self.lengths - self.starts
        first = (np.cumsum(parts) - parts - self.starts)[rows]
        layout = self.layout(rows, sizes)
        tokens = np.where(layout.used, first[layout.prompts] + layout.positions, 0)
        return Selection(layout=layout, rows=rows.astype(np.int32), tokens=tokens.astype(np.int32))


def spans_of(batch: Batch, *, share_prefix: bool = True) -> Spans:
    """Measures prompts.

    Args:
      batch: N prompts.
      share_prefix: False to start every prompt at its first token.
    """
    real = np.asarray(batch.attention_mask, bool)
    differs = (np.asarray(batch.clean) != np.asarray(batch.corrupted)) & real
    starts = differs.argmax(1) if share_prefix else np.zeros(len(real), int)
    return Spans(lengths=real.sum(1), starts=starts)


def packed_tokens(batch: Batch, layout: Layout) -> np.ndarray:
    """Clean and corrupted ids of packed tokens.

    Args:
      batch: [B, T] prompts.
      layout: of the same prompts.

    Returns:
      [S=2, K] int32; 0 on tokens that only fill the row.
    """
    return np.where(layout.used, batch.streams[:, layout.prompts, layout.positions], 0)
