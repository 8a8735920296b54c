"""Gradients at every reader's input or every node's value of the untouched model, by taps.

On clean prompts, or on embeddings between corrupted and clean ones; one forward and one backward
pass for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    V_EDGES,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import embed, unembed
from mgnp_jax.passes.layers import Layer
from mgnp_jax.passes.node_values import CorruptedRun, SiteValues
from mgnp_jax.passes.packing import Layout, attend
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Params

Figure = Callable[[jax.Array, CachedRuns], jax.Array]
"""(the circuit's logits [B, V], the prompts) → [B]; higher is better."""


@struct.dataclass
class Taps:
    """What is added where nodes write or readers read; zeros, of which the gradient is taken.

    Attributes:
      reads: by kind of edges, [L, readers, K, D], [L, K, D] for MLPs, and [B, D] for the logits.
      sites: [L, K, …] node values.
    """

    reads: dict[str, Any]
    sites: Any


class Clean(NamedTuple):
    """How the clean run differs from the corrupted one.

    Attributes:
      embedding: [K, D] of the clean prompts.
      sites: [L, K, …] clean node values less the corrupted run's.
    """

    embedding: jax.Array
    sites: SiteValues


def edge_taps(model_config: ModelConfig, runs: CachedRuns) -> Taps:
    """Taps on every reader.

    Args:
      model_config: the model's shape.
      runs: B prompts of K tokens.
    """
    c, (tokens, _) = model_config, runs.corrupted.embedding.shape
    zeros = functools.partial(jnp.zeros, dtype=runs.corrupted.embedding.dtype)
    reads = {
        Q_EDGES: zeros((c.layers, c.heads, tokens, c.width)),
        K_EDGES: zeros((c.layers, c.kv_heads, tokens, c.width)),
        V_EDGES: zeros((c.layers, c.kv_heads, tokens, c.width)),
        MLP_EDGES: zeros((c.layers, tokens, c.width)),
        LOGITS_EDGES: zeros((len(runs.layout.answers), c.width)),
    }
    return Taps(reads=reads, sites=None)


def node_taps(runs: CachedRuns) -> Taps:
    """Taps on every site.

    Args:
      runs: B prompts of K tokens.
    """
    (values,) = runs.corrupted.values
    return Taps(reads={}, sites=jax.tree.map(jnp.zeros_like, values))


def _layer(
    model_config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    weights: Params,
    taps: Taps,
    prefix: Any,
) -> tuple[jax.Array, SiteValues]:
    """One layer of the untouched model with taps: what it adds up to, its node values."""
    layer, reads = Layer(model_config, weights), taps.reads

    def tapped(site: str, value: jax.Array) -> jax.Array:
        return value if taps.sites is None else value + getattr(taps.sites, site)

    if reads:
        # Recomputed, as a residual stream for each head is large and soon made again.
        @jax.checkpoint
        def project(x: jax.Array, reads: dict[str, jax.Array]) -> Any:
            parts = (x[None] + reads[name] for name in HEAD_EDGES)
            return layer.step("attn_qkv_each", *parts, layout.positions)

        q, k, v = project(x, {name: reads[name] for name in HEAD_EDGES})
    else:
        q, k, v = layer.step("attn_qkv", x, layout.positions)
    z = tapped("attn_z", attend(layout, q, k, v, prefix))
    projected = layer.step("attn_out", z)
    out = tapped("attn_out", layer.step("attn_write", projected))
    read = x if model_config.parallel else x + out
    hidden = layer.step("mlp_hidden", read + reads[MLP_EDGES] if reads else read)
    hidden = tapped("mlp_hidden", hidden)
    mlp_projected = layer.step("mlp_out", hidden)
    mlp = tapped("mlp_out", layer.step("mlp_write", mlp_projected))
    values = SiteValues(attn_z=z, attn_out=out, mlp_hidden=hidden, mlp_out=mlp)
    return x + out + mlp, values


def _tapped(
    model_config: ModelConfig,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    taps: Taps,
    *,
    values: bool = False,
) -> tuple[jax.Array, SiteValues | None]:
    """Logits [B, V] of the untouched model on embeddings; its node values, if they are wanted."""
    layout, (prefix,) = runs.layout, runs.corrupted.prefix
    has_prefix = layout.prefix.shape[1] > 0
    each = {name: tap for name, tap in taps.reads.items() if name != LOGITS_EDGES}
    per_layer = taps.replace(reads=each)  # type: ignore[attr-defined]

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, SiteValues | None]:
        weights, taps, prefix = inputs
        prefix = prefix if has_prefix else None
        x, found = _layer(model_config, layout, x, weights, taps, prefix)
        return x, found if values else None

    x, found = jax.lax.scan(layer, embedding, (params["blocks"], per_layer, prefix))
    residual = x[layout.answers]
    if LOGITS_EDGES in taps.reads:
        residual = residual + taps.reads[LOGITS_EDGES]
    return unembed(model_config, params, residual), found


@functools.partial(jax.jit, static_argnums=0)
@exact
def clean_run(model_config: ModelConfig, params: Params, runs: CachedRuns) -> Clean:
    """The clean prompts, beside the corrupted ones that are kept.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: B prompts with their plain passes.
    """
    assert isinstance(runs.corrupted, CorruptedRun)
    (other,) = runs.corrupted.values
    embedding = embed(model_config, params, runs.clean, runs.layout.positions)
    nothing = Taps(reads={}, sites=None)
    _, found = _tapped(model_config, params, embedding, runs, nothing, values=True)
    assert found is not None
    found = found.replace(  # type: ignore[attr-defined]
        attn_projected=other.attn_projected, mlp_projected=other.mlp_projected
    )
    return Clean(embedding, jax.tree.map(jnp.subtract, found, other))


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def gradients(
    model_config: ModelConfig,
    figure: Figure,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    taps: Taps,
    so_far: Taps,
) -> Taps:
    """The gradient of a figure, summed over prompts, at every tap of the untouched model.

    Args:
      model_config: the model's shape.
      figure: to be kept high.
      params: the model's weights.
      embedding: [K, D] that the model is run on.
      runs: B prompts with their plain passes.
      taps: where.
      so_far: to be added to.
    """

    def total(taps: Taps) -> jax.Array:
        logits, _ = _tapped(model_config, params, embedding, runs, taps)
        return figure(logits, runs).sum()

    return jax.tree.map(jnp.add, so_far, jax.grad(total)(taps))
