"""Forward passes: plain, plain with node values kept, and masked. All family-blind.

Layers run under one `lax.scan` over params (and gates, and corrupted values) stacked on
the layer axis: one compilation of a block serves the whole model. Tokens are packed (see
`packing`); only the public functions take padded batches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.ends import embed, exact, unembed
from mgnp_jax.models.layers import masked_layer, plain_layer
from mgnp_jax.models.nodes import Captured, Corrupted, blend, site_gates
from mgnp_jax.models.packing import Layout, for_tokens, whole_grid
from mgnp_jax.models.segments import Segment
from mgnp_jax.types import Masks, Params


@exact
def capture(config: ModelConfig, params: Params, tokens: jax.Array, layout: Layout) -> Captured:
    """Runs the untouched model on whole prompts and keeps every node's value.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [K] int ids.
      layout: where they stand; no prefix.
    """
    chex.assert_equal_shape([tokens, layout.positions])
    embedding = embed(config, params, tokens, layout.positions)
    layer = functools.partial(plain_layer, config, layout)
    residual, (values, k, v) = jax.lax.scan(layer, embedding, params["blocks"])
    return Captured(residual=residual, embedding=embedding, values=values, keys=k, attended=v)


@exact
def masked_residual(
    config: ModelConfig,
    params: Params,
    masks: Sequence[Masks],
    clean: jax.Array,
    corrupted: Corrupted,
    layout: Layout,
    *,
    segments: Sequence[Segment] | None = None,
    remat: bool = False,
) -> jax.Array:
    """Runs the masked stream: each node mixes its value with the corrupted run's.

    Args:
      config: the model's shape.
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
    x = _mixed_embedding(config, params, masks[0], clean, corrupted.embedding, layout)
    has_prefix = layout.prefix.shape[1] > 0
    parts = [params["blocks"]] if segments is None else [s.weights for s in segments]
    for i, weights in enumerate(parts):
        gates = site_gates(masks[i])
        shape = config
        if segments is not None:
            gates = segments[i].closed_where_filled(gates)
            heads, hidden = gates.attn_z.shape[-2], gates.mlp_hidden.shape[-1]
            # Each head that is left has its key and value to itself.
            heads, hidden = max(heads, 1), max(hidden, 1)
            shape = dataclasses.replace(config, heads=heads, kv_heads=heads, mlp_width=hidden)

        def layer(x: jax.Array, inputs: Any, shape: ModelConfig = shape) -> tuple[jax.Array, None]:
            weights, gate, other, prefix = inputs
            prefix = prefix if has_prefix else None
            return masked_layer(shape, layout, x, weights, gate, other, prefix), None

        body = jax.checkpoint(layer, prevent_cse=False) if remat else layer
        inputs = (weights, gates, corrupted.values[i], corrupted.prefix[i])
        x, _ = jax.lax.scan(body, x, inputs)
    return x


@exact
def lockstep_residual(
    config: ModelConfig,
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
      config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      clean: [K] int ids of whole clean prompts.
      corrupted: [K] int ids of their corrupted prompts.
      layout: where they stand; no prefix.
      remat: recompute a layer's inner values in the gradient instead of keeping them.

    Returns:
      [K, D] residual stream of the masked run after the last layer.
    """
    beside = embed(config, params, corrupted, layout.positions)
    embedding = _mixed_embedding(config, params, masks, clean, beside, layout)

    def layer(both: tuple[jax.Array, jax.Array], inputs: Any) -> tuple[Any, None]:
        weights, gate = inputs
        x, y = both
        y, (other, _, _) = plain_layer(config, layout, y, weights)
        y, other = jax.lax.stop_gradient((y, other))
        return (masked_layer(config, layout, x, weights, gate, other, None), y), None

    body = jax.checkpoint(layer, prevent_cse=False) if remat else layer
    (residual, _), _ = jax.lax.scan(
        body, (embedding, beside), (params["blocks"], site_gates(masks))
    )
    return residual


def _mixed_embedding(
    config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    layout: Layout,
) -> jax.Array:
    """[K, D]: the clean embedding, or its mixture where the embedding has a gate."""
    embedding = embed(config, params, clean, layout.positions)
    if "embedding" not in masks:
        return embedding
    gate = for_tokens(layout, masks["embedding"][..., None], 1)
    return blend(gate, embedding, corrupted)


def _grid(config: ModelConfig, tokens: jax.Array, attention_mask: jax.Array | None) -> Layout:
    """The layout of a padded batch, checked."""
    chex.assert_rank(tokens, 2)
    if tokens.shape[1] > config.context:
        raise ValueError(
            f"prompts of {tokens.shape[1]} tokens are longer than the model's context "
            f"of {config.context}; shorten them"
        )
    mask = jnp.ones(tokens.shape, bool) if attention_mask is None else attention_mask
    chex.assert_equal_shape([tokens, mask])
    return whole_grid(mask)


@functools.partial(jax.jit, static_argnums=0)
def forward(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The base model, as published.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [B, T] int ids, right-padded.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits; rows at padded positions mean nothing.

    Raises:
      ValueError: if the prompts are longer than the context.
    """
    layout = _grid(config, tokens, attention_mask)
    residual = capture(config, params, tokens.reshape(-1), layout).residual
    return unembed(config, params, residual.reshape(*tokens.shape, -1))


@functools.partial(jax.jit, static_argnums=0)
def two_stream_forward(
    config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The masked model on clean prompts, pruned nodes taking the corrupted run's values.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity, in [0, 1].
      clean: [B, T] int ids, right-padded.
      corrupted: [B, T] int ids, row by row as long as `clean`.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits. Masks of one give `forward` on the clean prompts; masks of zero,
      the embedding's too, `forward` on the corrupted ones.
    """
    chex.assert_equal_shape([clean, corrupted])
    layout = _grid(config, clean, attention_mask)
    residual = lockstep_residual(
        config, params, masks, clean.reshape(-1), corrupted.reshape(-1), layout
    )
    return unembed(config, params, residual.reshape(*clean.shape, -1))


@functools.partial(jax.jit, static_argnums=0)
def answer_logits(
    config: ModelConfig, params: Params, tokens: jax.Array, layout: Layout
) -> jax.Array:
    """The base model's logits at the answer position alone; no node's value is kept.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [K] int ids of whole prompts.
      layout: where they stand.

    Returns:
      [B, V].
    """
    residual = capture(config, params, tokens, layout).residual
    return unembed(config, params, residual[layout.answers])


@functools.partial(jax.jit, static_argnums=0)
def plain_passes(
    config: ModelConfig, params: Params, streams: jax.Array, layout: Layout
) -> tuple[jax.Array, Captured]:
    """Both plain passes in one call: base model on clean text, and the corrupted run.

    The same function on different tokens, hence one `vmap` over the stream axis. Neither
    depends on the masks, so their results may be kept for a whole dataset.

    Args:
      config: the model's shape.
      params: its weights.
      streams: [S=2, K] clean and corrupted token ids of whole prompts.
      layout: where they stand, in both streams.

    Returns:
      The base model's logits at the answer position [B, V]; all of the corrupted run.
    """
    chex.assert_shape(streams, (2, *layout.positions.shape))
    run = functools.partial(capture, config, params, layout=layout)
    both = jax.vmap(run)(streams)
    answers = both.residual[0][layout.answers]
    return unembed(config, params, answers), jax.tree.map(lambda leaf: leaf[1], both)
