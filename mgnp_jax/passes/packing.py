"""Prompts of unequal length as one row of tokens, nothing padded, nothing computed twice.

Everything in a layer but attention treats tokens one by one, so a batch is kept as K packed
tokens; attention alone gathers them into a [B, T] grid and back. Tokens before the first one
in which a pair differs have the same values in every stream whatever the masks, so a packed
batch may begin after them and read their keys and values from a prefix of P positions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Layout:
    """Where each of K packed tokens of B prompts stands.

    Attributes:
      positions: [K] int32 place in the prompt, from 0.
      slots: [K] int32 place in the flattened [B, T] grid of attention.
      used: [K] bool; False for tokens that only fill the row.
      grid: [B, T] int32 packed token of each place; 0 where there is none.
      real: [B, T] bool; False where there is none.
      prefix: [B, P] bool; which positions of the prefix the prompt has.
      answers: [B] int32 packed token that predicts the answer.
    """

    positions: Any
    slots: Any
    used: Any
    grid: Any
    real: Any
    prefix: Any
    answers: Any

    @property
    def prompts(self) -> Any:
        """[K] which prompt each token is of."""
        return self.slots // self.real.shape[1]


def pack(
    lengths: np.ndarray,
    starts: np.ndarray,
    *,
    tokens: int | None = None,
    positions: int | None = None,
    prefix: int | None = None,
) -> Layout:
    """Packs the tokens of each prompt from its start to its end, one prompt after another.

    Args:
      lengths: [B] tokens of each prompt.
      starts: [B] first token of each prompt that is packed, less than its length.
      tokens: K, at least as many as there are; just as many by default.
      positions: T of the grid; the longest packed part by default.
      prefix: P; the latest start by default.

    Returns:
      The layout, as numpy arrays.
    """
    lengths, starts = np.asarray(lengths), np.asarray(starts)
    parts = lengths - starts
    count = int(parts.sum())
    size = count if tokens is None else tokens
    width = int(parts.max()) if positions is None else positions
    before = int(starts.max()) if prefix is None else prefix
    prompt = np.repeat(np.arange(len(parts)), parts)
    first = np.cumsum(parts) - parts
    within = np.arange(count) - first[prompt]
    fill = (0, size - count)
    columns = np.arange(width)[None]
    real = columns < parts[:, None]
    return Layout(
        positions=np.pad(starts[prompt] + within, fill).astype(np.int32),
        slots=np.pad(prompt * width + within, fill).astype(np.int32),
        used=np.arange(size) < count,
        grid=np.where(real, first[:, None] + columns, 0).astype(np.int32),
        real=real,
        prefix=np.arange(before)[None] < starts[:, None],
        answers=(first + parts - 1).astype(np.int32),
    )


def whole_grid(attention_mask: jax.Array) -> Layout:
    """The layout of a padded batch, every place of it packed; works on traced values.

    Args:
      attention_mask: [B, T], 1 on real tokens.
    """
    rows, width = attention_mask.shape
    slots = jnp.arange(rows * width, dtype=jnp.int32)
    real = attention_mask.astype(bool)
    last = real.sum(-1, dtype=jnp.int32) - 1
    return Layout(
        positions=slots % width,
        slots=slots,
        used=jnp.ones(rows * width, bool),
        grid=slots.reshape(rows, width),
        real=real,
        prefix=jnp.zeros((rows, 0), bool),
        answers=jnp.arange(rows, dtype=jnp.int32) * width + last,
    )


def _where(condition: jax.Array, values: jax.Array) -> jax.Array:
    shape = condition.shape + (1,) * (values.ndim - condition.ndim)
    return jnp.where(condition.reshape(shape), values, jnp.zeros((), values.dtype))


def _gather_grid(layout: Layout, packed: jax.Array) -> jax.Array:
    return _where(layout.real, packed[layout.grid])


def _gather_packed(layout: Layout, grid: jax.Array) -> jax.Array:
    return _where(layout.used, grid.reshape(-1, *grid.shape[2:])[layout.slots])


# Each is the other's transpose. Said so, because left to itself the gradient of a gather is
# a scatter, which CPUs do row by row.
@jax.custom_vjp
def to_grid(layout: Layout, packed: jax.Array) -> jax.Array:
    """[K, …] packed tokens → [B, T, …], zero where there is none."""
    return _gather_grid(layout, packed)


@jax.custom_vjp
def from_grid(layout: Layout, grid: jax.Array) -> jax.Array:
    """[B, T, …] → [K, …] packed tokens, zero on those that only fill the row."""
    return _gather_packed(layout, grid)


to_grid.defvjp(
    lambda layout, packed: (_gather_grid(layout, packed), layout),
    lambda layout, cotangent: (None, _gather_packed(layout, cotangent)),
)
from_grid.defvjp(
    lambda layout, grid: (_gather_packed(layout, grid), layout),
    lambda layout, cotangent: (None, _gather_grid(layout, cotangent)),
)


def for_tokens(layout: Layout, gate: jax.Array, rank: int) -> jax.Array:
    """Gates as they act on packed tokens.

    Args:
      layout: K tokens of B prompts.
      gate: [*node], shared, or [B, *node], each prompt's own.
      rank: number of axes of a node.

    Returns:
      [1, *node] or [K, *node].
    """
    if gate.ndim == rank:
        return gate[None]
    rows = layout.real.shape[0]
    chosen = jax.nn.one_hot(layout.prompts, rows, dtype=gate.dtype)
    # A product with ones and zeros, because the gradient of a gather would be a scatter.
    spread = chosen @ gate.reshape(rows, -1)
    return spread.reshape(-1, *gate.shape[1:])
