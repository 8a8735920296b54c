"""Forward passes at node level: plain, plain with node values kept, and masked.

Layers run under one `lax.scan` over params (and gates, and corrupted values) stacked on
the layer axis: one compilation of a block serves the whole model. Tokens are packed (see
`packing`); `forward` takes padded batches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax

from mgnp_jax.masks.granularities import EMBEDDING
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.compaction import Segment
from mgnp_jax.passes.embeddings import embed, unembed
from mgnp_jax.passes.layer_steps import stacked_layers
from mgnp_jax.passes.layers import masked_layer, plain_layer
from mgnp_jax.passes.node_values import CorruptedRun, PlainRun, SiteValues, blend, site_gates
from mgnp_jax.passes.packing import Layout, for_tokens
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segments import Stack, stacks
from mgnp_jax.types import Masks, Params


@exact
def capture(
    model_config: ModelConfig, params: Params, tokens: jax.Array, layout: Layout
) -> PlainRun:
    """Runs the untouched model on whole prompts and keeps every node's value.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [K] int ids.
      layout: where they stand; no prefix.
    """
    chex.assert_equal_shape([tokens, layout.positions])
    embedding = embed(model_config, params, tokens, layout.positions)
    layer = functools.partial(plain_layer, model_config, layout)
    layers = stacked_layers(model_config, params)
    residual, (values, k, v) = jax.lax.scan(layer, embedding, layers)
    return PlainRun(residual=residual, embedding=embedding, values=values, keys=k, attended=v)


@exact
def masked_residual(
    model_config: ModelConfig,
    params: Params,
    masks: Sequence[Masks],
    clean: jax.Array,
    corrupted: CorruptedRun,
    layout: Layout,
    *,
    segments: Sequence[Segment] | None = None,
    remat: bool = False,
) -> jax.Array:
    """Runs the masked stream: each node mixes its value with the corrupted run's.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity for each segment, in [0, 1], shared [l, …] or each prompt's
        own [l, B, …]; the first may have `"embedding"`, else that gate is 1.
      clean: [K] int ids of the clean prompts.
      corrupted: the corrupted run's values of these tokens, segment by segment.
      layout: where they stand, in both streams.
      segments: the layers without nodes closed for good; None for the whole model.
      remat: recompute a layer's inner values in the gradient instead of keeping them.

    Returns:
      [K, D] residual stream after the last layer.
    """
    x = mixed_embedding(model_config, params, masks[0], clean, corrupted.embedding, layout)
    for stack in stacks(model_config, params, masks, corrupted, segments):

        def layer(x: jax.Array, inputs: Any, stack: Stack = stack) -> tuple[jax.Array, None]:
            return stack.layer(layout, x, inputs), None

        body = jax.checkpoint(layer, prevent_cse=False) if remat else layer
        x, _ = jax.lax.scan(body, x, stack.inputs)
    return x


@exact
def lockstep_residual(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    layout: Layout,
    *,
    remat: bool = False,
) -> jax.Array:
    """`masked_residual` with the corrupted run beside it, layer by layer.

    No more than one layer's corrupted values exist at a time, and no gradient is taken
    through them.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      clean: [K] int ids of whole clean prompts.
      corrupted: [K] int ids of their corrupted prompts.
      layout: where they stand; no prefix.
      remat: recompute a layer's inner values in the gradient instead of keeping them.

    Returns:
      [K, D] residual stream of the masked run after the last layer.
    """
    beside = embed(model_config, params, corrupted, layout.positions)
    embedding = mixed_embedding(model_config, params, masks, clean, beside, layout)

    def layer(both: tuple[jax.Array, jax.Array], inputs: Any) -> tuple[Any, None]:
        weights, gate = inputs
        x, y = both
        y, (other, _, _) = plain_layer(model_config, layout, y, weights)
        y, other = jax.lax.stop_gradient((y, other))
        return (masked_layer(model_config, layout, x, weights, gate, other, None), y), None

    body = jax.checkpoint(layer, prevent_cse=False) if remat else layer
    inputs = (stacked_layers(model_config, params), site_gates(masks))
    (residual, _), _ = jax.lax.scan(body, (embedding, beside), inputs)
    return residual


def mixed_embedding(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    layout: Layout,
) -> jax.Array:
    """The embedding of a masked pass: clean, or mixed where the embedding has a gate.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      clean: [K] int ids of the clean prompts.
      corrupted: [K, D] the corrupted run's embedding.
      layout: where they stand.

    Returns:
      [K, D].
    """
    embedding = embed(model_config, params, clean, layout.positions)
    if EMBEDDING not in masks:
        return embedding
    gate = for_tokens(layout, masks[EMBEDDING][..., None], 1)
    return blend(gate, embedding, corrupted)


@functools.partial(jax.jit, static_argnums=0)
def answer_logits(
    model_config: ModelConfig, params: Params, tokens: jax.Array, layout: Layout
) -> jax.Array:
    """The base model's logits at the answer position alone; no node's value is kept.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [K] int ids of whole prompts.
      layout: where they stand.

    Returns:
      [B, V].
    """
    residual = capture(model_config, params, tokens, layout).residual
    return unembed(model_config, params, residual[layout.answers])


@functools.partial(jax.jit, static_argnums=0, static_argnames="clean_values")
@exact
def plain_passes(
    model_config: ModelConfig,
    params: Params,
    streams: jax.Array,
    layout: Layout,
    chosen: jax.Array,
    before: jax.Array,
    *,
    clean_values: bool = False,
) -> tuple[jax.Array, CorruptedRun, SiteValues | None]:
    """Both plain passes in one call: base model on clean text, and the corrupted run.

    The same function on different tokens, hence one `vmap` over the stream axis. Neither
    depends on the masks, so their results may be kept for a whole dataset. Each layer keeps
    no more than is asked for.

    Args:
      model_config: the model's shape.
      params: its weights.
      streams: [S=2, K'] clean and corrupted token ids of whole prompts.
      layout: where they stand, in both streams.
      chosen: [K] which of the tokens the corrupted run's values are wanted of.
      before: [B, P] the tokens that the prefix is made of.
      clean_values: whether the base model's values of the chosen tokens are wanted, too.

    Returns:
      The base model's logits at the answer position [B, V]; what is wanted of the corrupted run,
      and of the base model.
    """
    chex.assert_shape(streams, (2, *layout.positions.shape))
    both = jax.vmap(lambda tokens: embed(model_config, params, tokens, layout.positions))
    embedding = both(streams)

    def layer(x: jax.Array, weights: Params) -> tuple[jax.Array, Any]:
        step = jax.vmap(lambda one: plain_layer(model_config, layout, one, weights))
        x, (values, k, v) = step(x)
        clean, kept = (
            jax.tree.map(lambda leaf, stream=stream: leaf[stream][chosen], values)
            for stream in range(2)
        )
        return x, (clean if clean_values else None, kept, (k[1][before], v[1][before]))

    layers = stacked_layers(model_config, params)
    residual, (clean, values, prefix) = jax.lax.scan(layer, embedding, layers)
    logits = unembed(model_config, params, residual[0][layout.answers])
    corrupted = CorruptedRun(embedding=embedding[1][chosen], values=(values,), prefix=(prefix,))
    return logits, corrupted, clean
