"""The untouched model with taps, of which gradients are taken: on what is read, or what is written.

A tap on an edge is a gate of one. What it lets through is known beforehand (`written`), so the pass
runs as without taps, and the gradient in all gates of a layer is one product as it walks back.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.masks.edges import HEAD_EDGES, LOGITS_EDGES, MLP_EDGES
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.layers import Hooks, plain_layer
from mgnp_jax.passes.mixture import gate_products, over_readers
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.packing import Layout
from mgnp_jax.types import Masks, Params


@struct.dataclass
class Taps:
    """Where gradients are taken.

    Attributes:
      gates: of edges, by kind of reader, all of them one; None for none.
      written: [W, K, D] what they let through.
      sites: [L, K, …] zeros that are added to node values; None for none.
    """

    gates: Masks | None = None
    written: jax.Array | None = None
    sites: SiteValues | None = None


@jax.custom_vjp
def _read(x: jax.Array, gate: jax.Array, written: jax.Array) -> jax.Array:
    """X + (gate − 1) · written, where the gates [W] of one reader are one: x."""
    del gate, written
    return x


_read.defvjp(
    lambda x, gate, written: (x, written),
    lambda written, back: (back, gate_products(back[None], written)[0], None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read_normed(
    model_config: ModelConfig, weights: Params, x: jax.Array, gates: jax.Array, written: jax.Array
) -> jax.Array:
    """The same for many readers by attention's norm: [R, …, D], the normed x for each.

    All of them read one x, so it is normed once, and only gradients are led back for each.
    """
    del written
    normed = Layer(model_config, weights).step("attn_normed", x)
    return jnp.broadcast_to(normed[None], (len(gates), *x.shape))


def _read_normed_back(model_config: ModelConfig, saved: Any, back: jax.Array) -> Any:
    weights, x, written = saved
    _, pull = jax.vjp(lambda x: Layer(model_config, weights).step("attn_normed", x), x)
    (each,) = jax.vmap(pull)(back)
    return None, over_readers(each), gate_products(each, written), None


_read_normed.defvjp(
    lambda c, weights, x, gates, written: (
        _read_normed(c, weights, x, gates, written),
        (weights, x, written),
    ),
    _read_normed_back,
)


def _hooks(gates: Masks | None, sites: SiteValues | None, written: Any) -> Hooks:
    """The taps of one layer, on what is read and on what is written."""
    hooks = Hooks()
    if sites is not None:
        hooks = hooks._replace(write=lambda site, value: value + getattr(sites, site))
    if gates is None:
        return hooks

    def project(layer: Layer, layout: Layout, x: jax.Array) -> tuple[jax.Array, ...]:
        c = layer.model_config
        into = jnp.concatenate([gates[name] for name in HEAD_EDGES])
        normed: Any = _read_normed(c, layer.weights, x, into, written)
        parts = jnp.split(normed, (c.heads, c.heads + c.kv_heads))
        return layer.qkv_each(layout, *parts)

    return hooks._replace(project=project, read=lambda x: _read(x, gates[MLP_EDGES], written))


def tapped_run(
    model_config: ModelConfig,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    taps: Taps,
) -> jax.Array:
    """Runs the untouched model on embeddings.

    Args:
      model_config: the model's shape.
      params: its weights.
      embedding: [K, D].
      runs: B prompts of K tokens; their prefix is used.
      taps: to take gradients of.

    Returns:
      Logits [B, V] at the answer position.
    """
    layout, (prefix,) = runs.layout, runs.corrupted.prefix
    has_prefix = layout.prefix.shape[1] > 0
    gates = taps.gates and {n: gate for n, gate in taps.gates.items() if n != LOGITS_EDGES}

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        weights, gates, sites, prefix = inputs
        hooks = _hooks(gates, sites, taps.written)
        x, _ = plain_layer(model_config, layout, x, weights, prefix, hooks)
        return x, None

    layers = stacked_layers(model_config, params)
    inputs = (layers, gates, taps.sites, prefix if has_prefix else None)
    x, _ = jax.lax.scan(layer, embedding, inputs)
    residual = x[layout.answers]
    if taps.gates is not None:
        assert taps.written is not None
        residual = _read(residual, taps.gates[LOGITS_EDGES], taps.written[:, layout.answers])
    return unembed(model_config, params, residual)
