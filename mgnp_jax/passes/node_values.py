"""The node interface: sites, their values, and the gates that act on them.

A layer has four sites. Gates of one or two granularities act on each; where two act on
the same value their product is what counts, since m1(m2 v + (1-m2) c) + (1-m1) c
= m1 m2 v + (1 - m1 m2) c.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.types import Masks


@struct.dataclass
class SiteValues:
    """One value (or one gate) per node of the model.

    As node values, the leading axes are [L, K], K packed tokens; as gates [L], because a
    gate is shared by prompts and positions, or [L, B] where each prompt has its own draw.

    Attributes:
      attn_z: [L, K, H, E] head outputs before the output projection.
      attn_out: [L, K, D] what attention writes to the residual stream.
      mlp_hidden: [L, K, F] MLP neurons after the activation (and gating).
      mlp_out: [L, K, D] what the MLP writes to the residual stream.
      attn_projected: [L, K, D] attention's output before the norm that follows it; None where
        none does, and for gates.
      mlp_projected: the same of the MLP.
    """

    attn_z: jax.Array
    attn_out: jax.Array
    mlp_hidden: jax.Array
    mlp_out: jax.Array
    attn_projected: jax.Array | None = None
    mlp_projected: jax.Array | None = None


@struct.dataclass
class PlainRun:
    """Everything that a plain run says.

    Attributes:
      residual: [K, D] residual stream after the last layer.
      embedding: [K, D].
      values: [L, K, …] node values.
      keys: [L, K, KV, E] what later tokens match their queries with.
      attended: [L, K, KV, E] what they then read.
    """

    residual: jax.Array
    embedding: jax.Array
    values: SiteValues
    keys: jax.Array
    attended: jax.Array


@struct.dataclass
class CorruptedRun:
    """What a masked run needs of the corrupted one.

    Attributes:
      embedding: [K, D].
      values: [l, K, …] node values, for each segment of l layers.
      prefix: keys and values [l, B, P, KV, E] of the positions before the packed ones, in
        which both streams agree, for each segment.
    """

    embedding: jax.Array
    values: tuple[SiteValues, ...]
    prefix: tuple[tuple[jax.Array, jax.Array], ...]


def site_gates(masks: Masks) -> SiteValues:
    """Combines the granularities into one gate per node and site.

    Args:
      masks: gates by granularity, each [L, ...] or [L, B, ...].

    Returns:
      Gates: `attn_z` [L, H, E], `attn_out` [L, 1], `mlp_hidden` [L, F],
      `mlp_out` [L, D]; with B after L if the masks have it.
    """
    return SiteValues(
        attn_z=masks[ATTENTION_HEADS][..., None] * masks[ATTENTION_NEURONS],
        attn_out=masks[ATTENTION_BLOCKS][..., None],
        mlp_hidden=masks[MLP_HIDDEN],
        mlp_out=masks[MLP_OUTPUT] * masks[MLP_BLOCKS][..., None],
    )


def blend(gate: jax.Array, clean: jax.Array, corrupted: jax.Array) -> jax.Array:
    """Equation 5: m · clean + (1 - m) · corrupted.

    Args:
      gate: [*node] in [0, 1] (or bool), shared by all tokens, or [K, *node].
      clean: [K, *node] values of the masked stream.
      corrupted: [K, *node] values of the untouched corrupted run.

    Returns:
      [K, *node] in the dtype of `clean`.
    """
    chex.assert_equal_shape([clean, corrupted])
    gate = jnp.broadcast_to(gate.astype(clean.dtype), clean.shape)
    return corrupted + gate * (clean - corrupted)
