"""The untouched model with taps, of which gradients are taken: on what is read, or what is written.

A tap on an edge is a gate of one. What it lets through is known beforehand (`written`), so the pass
runs as without taps, and the gradient in all gates of a layer is one product as it walks back.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.masks.edges import HEAD_EDGES, LOGITS_EDGES, MLP_EDGES
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.layers import Hooks, Layer, plain_layer
from mgnp_jax.passes.mixture import gate_products
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
def _read(x: jax.Array, gates: jax.Array, written: jax.Array) -> jax.Array:
    """X + (gates − 1) · written, where gates [R, W] are one: [R, …, D], x for every reader."""
    del written
    return jnp.broadcast_to(x[None], (len(gates), *x.shape))


_read.defvjp(
    lambda x, gates, written: (_read(x, gates, written), written),
    lambda written, back: (back.sum(0), gate_products(back, written), None),
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

        # Recomputed, as a residual stream for each head is large and soon made again.
        @jax.checkpoint
        def each(x: jax.Array, gate: jax.Array) -> tuple[jax.Array, ...]:
            parts = jnp.split(_read(x, gate, written), (c.heads, c.heads + c.kv_heads))
            return layer.step("attn_qkv_each", *parts, layout.positions)

        return each(x, jnp.concatenate([gates[name] for name in HEAD_EDGES]))

    return hooks._replace(
        project=project, read=lambda x: _read(x, gates[MLP_EDGES][None], written)[0]
    )


def tapped_run(
    model_config: ModelConfig,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    taps: Taps,
    *,
    values: bool = False,
) -> tuple[jax.Array, SiteValues | None]:
    """Runs the untouched model on embeddings.

    Args:
      model_config: the model's shape.
      params: its weights.
      embedding: [K, D].
      runs: B prompts of K tokens; their prefix is used.
      taps: to take gradients of.
      values: whether node values are wanted.

    Returns:
      Logits [B, V] at the answer position; node values [L, K, …] if they are wanted.
    """
    layout, (prefix,) = runs.layout, runs.corrupted.prefix
    has_prefix = layout.prefix.shape[1] > 0
    gates = taps.gates and {n: gate for n, gate in taps.gates.items() if n != LOGITS_EDGES}

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, SiteValues | None]:
        weights, gates, sites, prefix = inputs
        hooks = _hooks(gates, sites, taps.written)
        x, (found, _, _) = plain_layer(model_config, layout, x, weights, prefix, hooks)
        return x, found if values else None

    inputs = (params["blocks"], gates, taps.sites, prefix if has_prefix else None)
    x, found = jax.lax.scan(layer, embedding, inputs)
    residual = x[layout.answers]
    if taps.gates is not None:
        assert taps.written is not None
        last = taps.gates[LOGITS_EDGES][None]
        (residual,) = _read(residual, last, taps.written[:, layout.answers])
    return unembed(model_config, params, residual), found
