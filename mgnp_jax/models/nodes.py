"""The node interface: sites, their values, and the gates that act on them.

A layer has four sites. Gates of one or two granularities act on each; where two act on
the same value their product is what counts, since m1(m2 v + (1-m2) c) + (1-m1) c
= m1 m2 v + (1 - m1 m2) c.
"""

from __future__ import annotations

import chex
import jax
from flax import struct

from mgnp_jax.types import Masks

SITES = ("attn_z", "attn_out", "mlp_hidden", "mlp_out")
"""The four sites in the order in which a layer computes them."""


@struct.dataclass
class SiteValues:
    """One value (or one gate) per node of the model.

    As node values, the leading axes are [L, B, T]; as gates just [L], because a gate is
    shared by prompts and positions.

    Attributes:
      attn_z: [L, B, T, H, E] head outputs before the output projection.
      attn_out: [L, B, T, D] what attention writes to the residual stream.
      mlp_hidden: [L, B, T, F] MLP neurons after the activation (and gating).
      mlp_out: [L, B, T, D] what the MLP writes to the residual stream.
    """

    attn_z: jax.Array
    attn_out: jax.Array
    mlp_hidden: jax.Array
    mlp_out: jax.Array


def site_gates(masks: Masks) -> SiteValues:
    """Combines the granularities into one gate per node and site.

    Args:
      masks: gates by granularity, each [L, ...].

    Returns:
      Gates: `attn_z` [L, H, E], `attn_out` [L, 1], `mlp_hidden` [L, F],
      `mlp_out` [L, D].
    """
    return SiteValues(
        attn_z=masks["attention_heads"][..., None] * masks["attention_neurons"],
        attn_out=masks["attention_blocks"][:, None],
        mlp_hidden=masks["mlp_hidden"],
        mlp_out=masks["mlp_output"] * masks["mlp_blocks"][:, None],
    )


def blend(gate: jax.Array, clean: jax.Array, corrupted: jax.Array) -> jax.Array:
    """Equation 5: m · clean + (1 - m) · corrupted.

    Args:
      gate: [*node] in [0, 1] (or bool), shared by all prompts and positions.
      clean: [B, T, *node] values of the masked stream.
      corrupted: [B, T, *node] values of the untouched corrupted run.

    Returns:
      [B, T, *node] in the dtype of `clean`.
    """
    chex.assert_equal_shape([clean, corrupted])
    gate = gate.astype(clean.dtype)
    return corrupted + gate[None, None] * (clean - corrupted)
