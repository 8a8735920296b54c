"""One layer, plain and masked, written in the steps of the family's block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.layer_steps import Layer, Prefix
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.packing import Layout, for_tokens
from mgnp_jax.types import Params


class Hooks(NamedTuple):
    """What happens to values on their way through a layer; by default nothing.

    Attributes:
      project: (layer, layout, residual [K, D]) → queries, keys and values; of a plain layer.
      read: residual → what the MLP reads, [K, D]; of a plain layer.
      write: (name of a site, its value) → what goes on from there; in a masked layer, of its gated
        difference to the corrupted run.
    """

    project: Callable[[Layer, Layout, jax.Array], tuple[jax.Array, ...]] = Layer.qkv
    read: Callable[[jax.Array], jax.Array] = lambda x: x
    write: Callable[[str, jax.Array], jax.Array] = lambda site, value: value


def plain_layer(
    model_config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    weights: Params,
    prefix: Prefix = None,
    hooks: Hooks = Hooks(),  # noqa: B008 - a tuple of functions
) -> tuple[jax.Array, tuple[SiteValues, jax.Array, jax.Array]]:
    """One layer of the untouched model.

    Args:
      model_config: the model's shape.
      layout: K tokens.
      x: [K, D] residual stream before it.
      weights: of the layer.
      prefix: of the positions before.
      hooks: on the values.

    Returns:
      The residual stream after it; its node values [K, …], keys and values [K, KV, E].
    """
    layer = Layer(model_config, weights)
    q, k, v = hooks.project(layer, layout, x)
    z = hooks.write("attn_z", layer.attend(layout, q, k, v, prefix))
    projected = layer.step("attn_out", z)
    out = hooks.write("attn_out", layer.step("attn_write", projected))
    read = x if model_config.parallel else x + out
    hidden = hooks.write("mlp_hidden", layer.step("mlp_hidden", hooks.read(read)))
    mlp_projected = layer.step("mlp_out", hidden)
    mlp = hooks.write("mlp_out", layer.step("mlp_write", mlp_projected))
    values = SiteValues(attn_z=z, attn_out=out, mlp_hidden=hidden, mlp_out=mlp)
    if model_config.norm_after:
        values = dataclasses.replace(  # type: ignore[type-var]
            values, attn_projected=projected, mlp_projected=mlp_projected
        )
    return (x + out if model_config.parallel else read) + mlp, (values, k, v)


def masked_layer(
    model_config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    weights: Params,
    gate: SiteValues,
    other: SiteValues,
    prefix: Prefix,
    hooks: Hooks = Hooks(),  # noqa: B008 - a tuple of functions
) -> jax.Array:
    """One layer of the masked stream.

    What a site writes is the corrupted run's value plus the gated difference to it, which
    is equation 5: c + m (v − c) = m v + (1 − m) c, carried through the affine output maps.
    So heads and hidden neurons that are closed for good may be left out of all arguments,
    and where none is left the site's own work, too; as where binary gates close all there are.

    Args:
      model_config: the model's shape, heads and MLP width those of the layer.
      layout: K tokens.
      x: [K, D] residual stream before it.
      weights: of the layer.
      gate: of the layer's nodes.
      other: [K, …] the corrupted run's values.
      prefix: of the positions before.
      hooks: on the gated differences.

    Returns:
      [K, D] residual stream after it.
    """
    layer = Layer(model_config, weights)
    before = x
    x = x + _attention_written(layer, layout, x, gate, other, prefix, hooks)
    read = before if model_config.parallel else x
    return x + _mlp_written(layer, layout, read, gate, other, hooks)


def _attention_written(
    layer: Layer,
    layout: Layout,
    x: jax.Array,
    gate: SiteValues,
    other: SiteValues,
    prefix: Prefix,
    hooks: Hooks,
) -> jax.Array:
    """[K, D]: what attention writes to the masked stream, which it reads at `x`."""
    if not gate.attn_z.shape[-2]:
        return other.attn_out

    def written(x: jax.Array) -> jax.Array:
        q, k, v = layer.qkv(layout, x)
        z = layer.attend(layout, q, k, v, prefix)
        difference = _acting(layout, gate.attn_z, x, 2) * (z - other.attn_z)
        difference = hooks.write("attn_z", difference)
        own = layer.linear("attn_out", difference)
        if other.attn_projected is not None:
            # A norm that follows is not affine: it acts on the whole, not on the difference.
            own = layer.step("attn_write", other.attn_projected + own) - other.attn_out
        own = hooks.write("attn_out", _acting(layout, gate.attn_out, x, 1) * own)
        return other.attn_out + own

    return _unless_closed(written, x, (gate.attn_z, gate.attn_out), other.attn_out, hooks)


def _mlp_written(
    layer: Layer,
    layout: Layout,
    x: jax.Array,
    gate: SiteValues,
    other: SiteValues,
    hooks: Hooks,
) -> jax.Array:
    """[K, D]: what the MLP writes to the masked stream, which it reads at `x`."""
    if not gate.mlp_hidden.shape[-1]:
        return other.mlp_out

    def written(x: jax.Array) -> jax.Array:
        hidden = layer.step("mlp_hidden", x)
        difference = _acting(layout, gate.mlp_hidden, x, 1) * (hidden - other.mlp_hidden)
        difference = hooks.write("mlp_hidden", difference)
        own = layer.linear("mlp_out", difference)
        if other.mlp_projected is not None:
            own = layer.step("mlp_write", other.mlp_projected + own) - other.mlp_out
        own = hooks.write("mlp_out", _acting(layout, gate.mlp_out, x, 1) * own)
        return other.mlp_out + own

    return _unless_closed(written, x, (gate.mlp_hidden, gate.mlp_out), other.mlp_out, hooks)


def _unless_closed(
    written: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    gates: tuple[jax.Array, jax.Array],
    closed: jax.Array,
    hooks: Hooks,
) -> jax.Array:
    """[K, D]: what a site writes; binary gates that close all of it leave its work out.

    Args:
      written: residual stream → what it writes.
      x: [K, D] what it reads.
      gates: that act one after the other.
      closed: [K, D] what it writes where all of either is closed.
      hooks: on the gated differences, which do not reach out of what may be left out.
    """
    if hooks != Hooks() or any(gate.dtype != bool for gate in gates):
        return written(x)
    acts = gates[0].any() & gates[1].any()
    kind = jax.eval_shape(written, x).dtype
    return jax.lax.cond(acts, written, lambda _: closed.astype(kind), x)


def _acting(layout: Layout, gate: jax.Array, like: jax.Array, rank: int) -> jax.Array:
    return for_tokens(layout, gate.astype(like.dtype), rank)
