"""First-order effects of all edges or nodes at once: their differences times gradients.

What a writer or node changes is its clean value's difference to its corrupted one, and what that is
worth is the gradient of a figure where it acts: at every reader's input (of edges) or at every site
(of nodes) of the untouched model, run on clean prompts or on embeddings between corrupted and clean
ones. One forward and one backward pass scores everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import first_writer, full_edges, writer_count
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import embed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.layers import plain_layer
from mgnp_jax.passes.node_values import CorruptedRun, SiteValues
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.taps import Taps, tapped_run
from mgnp_jax.types import Masks, Params

Figure = Callable[[jax.Array, CachedRuns], jax.Array]
"""(the circuit's logits [B, V], the prompts) → [B]; higher is better."""


@functools.partial(jax.jit, static_argnums=0)
def clean_embedding(model_config: ModelConfig, params: Params, runs: CachedRuns) -> jax.Array:
    """[K, D] of the clean prompts.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: B prompts.
    """
    return embed(model_config, params, runs.clean, runs.layout.positions)


@jax.jit
def node_differences(runs: CachedRuns, clean: SiteValues) -> SiteValues:
    """How the clean run differs from the corrupted one at every site.

    Args:
      runs: B prompts of K tokens with their plain passes.
      clean: [L, K, …] the full model's node values.

    Returns:
      [L, K, …] clean node values less the corrupted run's.
    """
    assert isinstance(runs.corrupted, CorruptedRun)
    (other,) = runs.corrupted.values
    return jax.tree.map(jnp.subtract, clean, other)


@functools.partial(jax.jit, static_argnums=0)
@exact
def edge_differences(
    model_config: ModelConfig, params: Params, runs: CachedRuns, clean: SiteValues
) -> jax.Array:
    """How what every node writes differs between the clean run and the corrupted one.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: B prompts of K tokens with their plain passes.
      clean: [L, K, …] the full model's node values.

    Returns:
      [W, K, D], the input first; of heads before a norm that follows attention.
    """
    sites = node_differences(runs, clean)
    embedding = clean_embedding(model_config, params, runs)
    written = jnp.zeros((writer_count(model_config), *embedding.shape), embedding.dtype)
    written = written.at[0].set(embedding - runs.corrupted.embedding)

    def layer(written: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        index, weights, z, mlp = inputs
        heads = Layer(model_config, weights).step("attn_out_each", z)
        first = first_writer(model_config, index)
        written = jax.lax.dynamic_update_slice_in_dim(written, heads, first, 0)
        last = first + len(heads)
        return jax.lax.dynamic_update_slice_in_dim(written, mlp[None], last, 0), None

    layers = (jnp.arange(model_config.layers), params["blocks"], sites.attn_z, sites.mlp_out)
    return jax.lax.scan(layer, written, layers)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def edge_effects(
    model_config: ModelConfig,
    figure: Figure,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    written: jax.Array,
) -> Masks:
    """Effects of edges on a figure, summed over prompts, positions and width.

    Where a norm follows attention, a head acts before it, so its effect is the difference times the
    gradient there: what comes back to a reader, led back through the norm as it is in this run.

    Args:
      model_config: the model's shape.
      figure: to be kept high.
      params: the model's weights.
      embedding: [K, D] that the untouched model is run on.
      runs: B prompts with their plain passes.
      written: as `edge_differences` found them.

    Returns:
      Float32 by kind of reader; of edges that the model does not have, it means nothing.
    """
    if model_config.norm_after:
        written = _through_norms(model_config, params, embedding, runs, written)

    def total(gates: Masks) -> jax.Array:
        taps = Taps(gates=gates, written=written)
        logits = tapped_run(model_config, params, embedding, runs, taps)
        return figure(logits, runs).sum()

    return jax.grad(total)(full_edges(model_config))


def _through_norms(
    model_config: ModelConfig,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    written: jax.Array,
) -> jax.Array:
    """[W, K, D] with heads' differences as the norm after attention passes small ones of them on.

    Its Jacobian, at what attention writes on this embedding, is the same for all readers: so the
    differences go through it once, not every reader's gradient back.
    """
    layout, (prefix,) = runs.layout, runs.corrupted.prefix
    has_prefix = layout.prefix.shape[1] > 0

    def layer(both: Any, inputs: Any) -> tuple[Any, None]:
        x, written = both
        index, weights, prefix = inputs
        x, (values, _, _) = plain_layer(model_config, layout, x, weights, prefix)
        write = functools.partial(Layer(model_config, weights).step, "attn_write")
        _, push = jax.linearize(write, values.attn_projected)
        first = first_writer(model_config, index)
        heads = jax.lax.dynamic_slice_in_dim(written, first, model_config.heads)
        written = jax.lax.dynamic_update_slice_in_dim(written, jax.vmap(push)(heads), first, 0)
        return (x, written), None

    layers = jnp.arange(model_config.layers), stacked_layers(model_config, params)
    inputs = (*layers, prefix if has_prefix else None)
    return jax.lax.scan(layer, (embedding, written), inputs)[0][1]


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def node_effects(
    model_config: ModelConfig,
    figure: Figure,
    params: Params,
    embedding: jax.Array,
    runs: CachedRuns,
    differences: SiteValues,
) -> Masks:
    """Effects of nodes on a figure, summed over prompts and positions.

    Args:
      model_config: the model's shape.
      figure: to be kept high.
      params: the model's weights.
      embedding: [K, D] that the untouched model is run on.
      runs: B prompts with their plain passes.
      differences: as `node_differences` found them.

    Returns:
      Float32 by granularity; a head's is that of all its neurons, a block's of all that it writes.
    """

    def total(sites: SiteValues) -> jax.Array:
        logits = tapped_run(model_config, params, embedding, runs, Taps(sites=sites))
        return figure(logits, runs).sum()

    gradient = jax.grad(total)(jax.tree.map(jnp.zeros_like, differences))
    effect = jax.tree.map(lambda a, b: (a * b).sum(1), differences, gradient)
    return {
        ATTENTION_BLOCKS: effect.attn_out.sum(-1),
        MLP_BLOCKS: effect.mlp_out.sum(-1),
        ATTENTION_HEADS: effect.attn_z.sum(-1),
        ATTENTION_NEURONS: effect.attn_z,
        MLP_HIDDEN: effect.mlp_hidden,
        MLP_OUTPUT: effect.mlp_out,
    }
