"""One layer, plain and masked, written in the family's steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named
from mgnp_jax.models.nodes import SiteValues
from mgnp_jax.models.packing import Layout, attend, for_tokens
from mgnp_jax.types import Params


def call(config: ModelConfig, weights: Params, method: str, *inputs: jax.Array) -> Any:
    """Applies one method of the family's block.

    Args:
      config: the layer's shape.
      weights: of the layer.
      method: name of it, see `family.Block`.
      inputs: its arguments.
    """
    block = family_named(config.family).block(config)
    return block.apply({"params": opened(weights)}, *inputs, method=method)


def sealed(params: Params, dtype: str) -> Params:
    """Weights in the precision they run in, as the compiler shall see them: bfloat16 as bits.

    Where bfloat16 is multiplied as float32 (CPUs), it would widen the weights of all layers
    at once, before the loop over them, and so make a second, larger model. Bits it leaves
    alone until a layer has them `opened`.

    Args:
      params: the weights.
      dtype: `"float32"`, which stays numbers, or `"bfloat16"`.
    """

    def bits(leaf: jax.Array) -> jax.Array:
        leaf = leaf.astype(dtype)
        narrow = leaf.dtype == jnp.bfloat16
        return jax.lax.bitcast_convert_type(leaf, jnp.uint16) if narrow else leaf

    return jax.tree.map(bits, params)


def opened(params: Params) -> Params:
    """The inverse of `sealed`; leaves other weights as they are.

    Args:
      params: any of the model's.
    """

    def number(leaf: jax.Array) -> jax.Array:
        narrow = leaf.dtype == jnp.uint16
        return jax.lax.bitcast_convert_type(leaf, jnp.bfloat16) if narrow else leaf

    return jax.tree.map(number, params)


def _linear(config: ModelConfig, weights: Params, method: str, difference: jax.Array) -> Any:
    """An affine method's linear part: what the difference of two inputs writes."""

    def unbiased(path: Any, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf) if path[-1].key == "bias" else leaf

    return call(config, jax.tree.map_with_path(unbiased, weights), method, difference)


def plain_layer(
    config: ModelConfig, layout: Layout, x: jax.Array, weights: Params
) -> tuple[jax.Array, tuple[SiteValues, jax.Array, jax.Array]]:
    """One layer of the untouched model.

    Args:
      config: the model's shape.
      layout: K tokens.
      x: [K, D] residual stream before it.
      weights: of the layer.

    Returns:
      The residual stream after it; its node values [K, …], keys and values [K, KV, E].
    """
    q, k, v = call(config, weights, "attn_qkv", x, layout.positions)
    z = attend(layout, q, k, v)
    out = call(config, weights, "attn_out", z)
    x = x + out
    hidden = call(config, weights, "mlp_hidden", x)
    mlp = call(config, weights, "mlp_out", hidden)
    return x + mlp, (SiteValues(z, out, hidden, mlp), k, v)


def masked_layer(
    config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    weights: Params,
    gate: SiteValues,
    other: SiteValues,
    prefix: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """One layer of the masked stream.

    What a site writes is the corrupted run's value plus the gated difference to it, which
    is equation 5: c + m (v − c) = m v + (1 − m) c, carried through the affine output maps.
    So heads and hidden neurons that are closed for good may be left out of all arguments,
    and where none is left the site's own work, too.

    Args:
      config: the model's shape, heads and MLP width those of the layer.
      layout: K tokens.
      x: [K, D] residual stream before it.
      weights: of the layer.
      gate: of the layer's nodes.
      other: [K, …] the corrupted run's values.
      prefix: keys and values [B, P, KV, E] of the positions before; None if P is 0.

    Returns:
      [K, D] residual stream after it.
    """

    def acting(gate: jax.Array, rank: int) -> jax.Array:
        return for_tokens(layout, gate.astype(x.dtype), rank)

    written = other.attn_out
    if gate.attn_z.shape[-2]:
        q, k, v = call(config, weights, "attn_qkv", x, layout.positions)
        z = attend(layout, q, k, v, prefix)
        difference = acting(gate.attn_z, 2) * (z - other.attn_z)
        own = _linear(config, weights, "attn_out", difference)
        written = written + acting(gate.attn_out, 1) * own
    x = x + written
    written = other.mlp_out
    if gate.mlp_hidden.shape[-1]:
        hidden = call(config, weights, "mlp_hidden", x)
        difference = acting(gate.mlp_hidden, 1) * (hidden - other.mlp_hidden)
        own = _linear(config, weights, "mlp_out", difference)
        written = written + acting(gate.mlp_out, 1) * own
    return x + written
