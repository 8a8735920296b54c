"""Scaled dot-product attention with grouped queries.

`jax.nn.dot_product_attention` computes its softmax in float32 whatever it is given, which
would keep gradients from being checked in float64.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend: jax.Array,
    *,
    scalar: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """Mixes values by softmax(q · k / √E), in float32 or finer.

    Args:
      q: [B, T, H, E] queries; head h reads key-value head h // (H / KV).
      k: [B, R, KV, E] keys of the R positions that can be read.
      v: [B, R, KV, E] values.
      attend: [B, T, R] bool, who may look at whom; every row has one True.
      scalar: whose root divides the products instead of that of E.
      cap: c of c · tanh(score / c), which keeps scores between −c and c; None for no cap.

    Returns:
      [B, T, H, E] in the dtype of `v`.
    """
    chex.assert_equal_shape([k, v])
    weights = _weights(q, k, attend, scalar, cap).astype(v.dtype)
    return jnp.einsum("bkgts,bske->btkge", weights, v).reshape(q.shape)


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    attend: jax.Array,
    *,
    scalar: float | None = None,
    cap: float | None = None,
) -> jax.Array:
    """How much each head reads from each position: softmax(q · k / √E), in float32 or finer.

    Args:
      q: [B, T, H, E] queries.
      k: [B, R, KV, E] keys.
      attend: [B, T, R] bool, who may look at whom; every row has one True.
      scalar: see `attention`.
      cap: the same.

    Returns:
      [B, H, T, R]; rows sum to 1.
    """
    weights = _weights(q, k, attend, scalar, cap)
    return weights.reshape(len(q), q.shape[2], *weights.shape[-2:])


def _weights(
    q: jax.Array, k: jax.Array, attend: jax.Array, scalar: float | None, cap: float | None
) -> jax.Array:
    """[B, KV, H / KV, T, R]."""
    batch, length, _, width = q.shape
    chex.assert_shape(attend, (batch, length, k.shape[1]))
    grouped = q.reshape(batch, length, k.shape[2], -1, width)
    divisor = (width if scalar is None else scalar) ** 0.5
    scores = jnp.einsum("btkge,bske->bkgts", grouped, k) / divisor
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    scores = jnp.where(attend[:, None, None], scores, -jnp.inf)
    return jax.nn.softmax(scores)
