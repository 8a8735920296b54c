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

    def attended(x: jax.Array) -> jax.Array:
        q, k, v = layer.qkv(layout, x)
        return layer.attend(layout, q, k, v, prefix)

    def hidden(x: jax.Array) -> jax.Array:
        return layer.step("mlp_hidden", x)

    x = x + _written(_ATTENTION, attended, layer, layout, x, gate, other, hooks)
    read = before if model_config.parallel else x
    return x + _written(_MLP, hidden, layer, layout, read, gate, other, hooks)


class _Site(NamedTuple):
    """Where a block's values are gated, by the names that they and its steps have.

    Attributes:
      inner: values before the output map, whose nodes have `rank` axes.
      outer: what is written, and the output map.
      write: what follows the output map.
      projected: the output map's value, where a norm follows.
      rank: of a node's axes before the output map.
    """

    inner: str
    outer: str
    write: str
    projected: str
    rank: int


_ATTENTION = _Site("attn_z", "attn_out", "attn_write", "attn_projected", 2)
_MLP = _Site("mlp_hidden", "mlp_out", "mlp_write", "mlp_projected", 1)


def _written(
    site: _Site,
    value: Callable[[jax.Array], jax.Array],
    layer: Layer,
    layout: Layout,
    x: jax.Array,
    gate: SiteValues,
    other: SiteValues,
    hooks: Hooks,
) -> jax.Array:
    """[K, D]: what attention or an MLP writes to the masked stream.

    Args:
      site: which.
      value: residual stream → its values before the output map.
      layer: its steps.
      layout: K tokens.
      x: [K, D] what it reads.
      gate: of the layer's nodes; binary ones that close all of it leave its work out.
      other: [K, …] the corrupted run's values.
      hooks: on the gated differences; they do not reach out of what may be left out.
    """
    inner, outer = getattr(gate, site.inner), getattr(gate, site.outer)
    closed, projected = getattr(other, site.outer), getattr(other, site.projected)
    if not inner.shape[-site.rank]:
        return closed

    def written(x: jax.Array) -> jax.Array:
        difference = value(x) - getattr(other, site.inner)
        difference = _acting(layout, inner, x, site.rank) * difference
        own = layer.linear(site.outer, hooks.write(site.inner, difference))
        if projected is not None:
            # A norm that follows is not affine: it acts on the whole, not on the difference.
            own = layer.step(site.write, projected + own) - closed
        return closed + hooks.write(site.outer, _acting(layout, outer, x, 1) * own)

    if hooks != Hooks() or any(each.dtype != bool for each in (inner, outer)):
        return written(x)
    kind = jax.eval_shape(written, x).dtype
    acts = inner.any() & outer.any()
    return jax.lax.cond(acts, written, lambda _: closed.astype(kind), x)


def _acting(layout: Layout, gate: jax.Array, like: jax.Array, rank: int) -> jax.Array:
    return for_tokens(layout, gate.astype(like.dtype), rank)
