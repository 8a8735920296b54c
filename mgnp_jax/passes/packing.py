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

from mgnp_jax.passes.attention import attention, attention_weights


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


def attend(
    layout: Layout,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    prefix: tuple[jax.Array, jax.Array] | None = None,
    *,
    window: jax.Array | None = None,
    scalar: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """Causal attention of packed tokens, each within its own prompt.

    Args:
      layout: K tokens of B prompts.
      q: [K, H, E] queries.
      k: [K, KV, E] keys.
      v: [K, KV, E] values.
      prefix: keys and values [B, P, KV, E] of the positions before; None if P is 0.
      window: [] int, how many tokens each sees, itself included; None for all before it.
      scalar: see `attention.attention`.
      cap: the same.

    Returns:
      [K, H, E] head outputs.
    """
    q, k, v = (to_grid(layout, part) for part in (q, k, v))
    rows, width = layout.real.shape
    seen = _seen(layout)
    if prefix is not None:
        k, v = (jnp.concatenate(pair, axis=1) for pair in zip(prefix, (k, v)))
        before = jnp.broadcast_to(layout.prefix[:, None, :], (rows, width, layout.prefix.shape[1]))
        seen = jnp.concatenate([before, seen], axis=-1)
    if window is not None:
        seen &= _within(layout, window, seen.shape[2] - width)
    return from_grid(layout, attention(q, k, v, seen, scalar=scalar, cap=cap))


def _within(layout: Layout, window: jax.Array, before: int) -> jax.Array:
    """[B, T, P + T]: who is less than a window's tokens after whom; P is `before`."""
    # The packed part begins where the prompt's prefix ends, whose places are positions.
    starts = layout.prefix.sum(-1, dtype=jnp.int32)[:, None]
    own = starts + jnp.arange(layout.real.shape[1], dtype=jnp.int32)[None]
    shared = jnp.arange(before, dtype=jnp.int32)[None]
    seen = jnp.concatenate([jnp.broadcast_to(shared, (len(own), before)), own], axis=1)
    return own[:, :, None] - seen[:, None, :] < window


def _seen(layout: Layout) -> jax.Array:
    """[B, T, T] which places of the grid each of its places may read."""
    width = layout.real.shape[1]
    causal = jnp.tril(jnp.ones((width, width), bool))[None]
    # An empty place may look at itself: a row that sees nothing is 0/0 on some devices,
    # and no real place ever sees an empty one, which comes later.
    itself = jnp.eye(width, dtype=bool)[None]
    return causal & (layout.real[:, None, :] | itself)


def attention_pattern(
    layout: Layout,
    q: jax.Array,
    k: jax.Array,
    *,
    window: jax.Array | None = None,
    scalar: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """How much each token of whole prompts reads from each: the weights of `attend`.

    Args:
      layout: K tokens of B prompts, no prefix.
      q: [K, H, E] queries.
      k: [K, KV, E] keys.
      window: see `attend`.
      scalar: the same.
      cap: the same.

    Returns:
      [B, H, T, T], rows reading from columns; rows sum to 1, those of empty places mean nothing.
    """
    assert layout.prefix.shape[1] == 0, "the weights on a prefix are not among those of the grid"
    seen = _seen(layout)
    if window is not None:
        seen &= _within(layout, window, 0)
    return attention_weights(to_grid(layout, q), to_grid(layout, k), seen, scalar=scalar, cap=cap)


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
