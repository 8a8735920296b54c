"""Whole prompts through the untouched model or a circuit: where heads look, what drives neurons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import embed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.layers import plain_layer
from mgnp_jax.passes.node_forward import mixed_embedding
from mgnp_jax.passes.packing import Layout
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segments import stacks
from mgnp_jax.types import Masks, Params


@functools.partial(jax.jit, static_argnums=0)
@exact
def last_attention(
    model_config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    layout: Layout,
    kinds: jax.Array,
    neurons: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """How much heads read from kinds of positions at the answer position, and some neurons.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [K] int ids of B whole prompts.
      layout: where they stand; no prefix.
      kinds: [C, B, T] bool, which positions are of each kind.
      neurons: [L, M] int, hidden neurons whose activations are wanted.

    Returns:
      Attention to all positions of a kind [L, C, B, H], activations [L, K, M], the residual stream
      after the last layer at the answer position [B, D], and what MLPs write there before the norm
      that follows [L, B, D]; None where none does.
    """
    rows, last = jnp.arange(len(layout.answers)), layout.real.sum(-1) - 1

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
        weights, chosen = inputs
        own = Layer(model_config, weights)
        q, k, _ = own.qkv(layout, x)
        pattern = own.pattern(layout, q, k)[rows, :, last]
        x, (values, _, _) = plain_layer(model_config, layout, x, weights)
        seen = jnp.einsum("cbt,bht->cbh", kinds.astype(pattern.dtype), pattern)
        projected = jax.tree.map(lambda leaf: leaf[layout.answers], values.mlp_projected)
        return x, (seen, values.mlp_hidden[:, chosen], projected)

    embedding = embed(model_config, params, tokens, layout.positions)
    x, (seen, active, projected) = jax.lax.scan(
        layer, embedding, (stacked_layers(model_config, params), neurons)
    )
    return seen, active, x[layout.answers], projected


def _patterns(
    model_config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    inputs: Any,
    layer: Callable[[jax.Array, Any], jax.Array],
    slots: jax.Array,
    count: int,
) -> jax.Array:
    """[count, B, T, T] of the heads that have a slot; `inputs` begin with the layers' weights."""
    empty = jnp.zeros((count, *layout.real.shape, layout.real.shape[1]), jnp.uint8)

    def step(both: Any, inputs: Any) -> tuple[Any, None]:
        x, found = both
        own, slot = inputs
        steps = Layer(model_config, own[0])
        q, k, _ = steps.qkv(layout, x)
        pattern = jnp.round(255 * steps.pattern(layout, q, k)).astype(jnp.uint8)
        # A head without slot has one beyond the end, which is dropped.
        found = found.at[slot].set(pattern.swapaxes(0, 1), mode="drop")
        return (layer(x, own), found), None

    (_, found), _ = jax.lax.scan(step, (x, empty), (inputs, slots))
    return found


@functools.partial(jax.jit, static_argnums=(0, 5))
@exact
def plain_patterns(
    model_config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    layout: Layout,
    slots: jax.Array,
    count: int,
) -> jax.Array:
    """Attention patterns of some heads of the untouched model.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [K] int ids of B whole prompts.
      layout: where they stand; no prefix.
      slots: [L, H] int, where in the result each head stands; `count` for those not wanted.
      count: how many heads are wanted.

    Returns:
      [count, B, T, T] uint8, 255 for all attention; rows read from columns.
    """
    embedding = embed(model_config, params, tokens, layout.positions)

    def layer(x: jax.Array, inputs: Any) -> jax.Array:
        return plain_layer(model_config, layout, x, inputs[0])[0]

    inputs = (stacked_layers(model_config, params),)
    return _patterns(model_config, layout, embedding, inputs, layer, slots, count)


@functools.partial(jax.jit, static_argnums=(0, 5))
@exact
def circuit_patterns(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    slots: jax.Array,
    count: int,
) -> jax.Array:
    """`plain_patterns` inside a circuit of nodes.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      runs: B whole prompts with their plain passes; no prefix.
      slots: [L, H] int, see `plain_patterns`.
      count: how many heads are wanted.

    Returns:
      [count, B, T, T] uint8.
    """
    (stack,) = stacks(model_config, params, [masks], runs.corrupted, None)
    layout, other = runs.layout, runs.corrupted.embedding
    x = mixed_embedding(model_config, params, masks, runs.clean, other, layout)

    def layer(x: jax.Array, inputs: Any) -> jax.Array:
        return stack.layer(layout, x, inputs)

    return _patterns(model_config, layout, x, stack.inputs, layer, slots, count)
