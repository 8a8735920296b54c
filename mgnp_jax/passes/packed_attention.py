"""Causal attention of packed tokens, each within its own prompt."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mgnp_jax.passes.attention import attention, attention_weights
from mgnp_jax.passes.packing import Layout, from_grid, to_grid


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
