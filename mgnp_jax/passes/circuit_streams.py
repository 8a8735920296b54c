"""A circuit's residual stream layer by layer, and circuits that differ from it from a layer on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.layers import Hooks
from mgnp_jax.passes.node_forward import mixed_embedding
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segments import Stack, stacks
from mgnp_jax.types import Masks, Params


def _stacks(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    compaction: Compaction | None,
) -> tuple[list[Masks], list[Stack]]:
    """Gates and layers, of the whole model or of what is left of it."""
    parts: list[Masks] = [masks] if compaction is None else compaction.masks(masks)
    segments = None if compaction is None else compaction.segments
    return parts, list(stacks(model_config, params, parts, runs.corrupted, segments))


@exact
def circuit_streams(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    compaction: Compaction | None = None,
) -> jax.Array:
    """The residual stream before each layer and after the last.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      runs: prompts of K tokens with their plain passes, of what is left of the model.
      compaction: what is left; None for all of it.

    Returns:
      [L + 1, K, D].
    """
    parts, found = _stacks(model_config, params, masks, runs, compaction)
    layout, streams = runs.layout, []
    other = runs.corrupted.embedding
    x = mixed_embedding(model_config, params, parts[0], runs.clean, other, layout)
    for stack in found:

        def layer(x: jax.Array, inputs: Any, stack: Stack = stack) -> tuple[jax.Array, jax.Array]:
            return stack.layer(layout, x, inputs), x

        x, before = jax.lax.scan(layer, x, stack.inputs)
        streams.append(before)
    return jnp.concatenate([*streams, x[None]])


@exact
def logits_from(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    stream: jax.Array,
    first: jax.Array,
    compaction: Compaction | None = None,
) -> jax.Array:
    """The logits of a circuit of which only the layers from one on are run. Not differentiable.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity.
      runs: B prompts of K tokens with their plain passes, of what is left of the model.
      stream: [K, D] residual stream before the first layer that is run.
      first: [] int, that layer.
      compaction: what is left; None for all of it.

    Returns:
      [B, V].
    """
    _, found = _stacks(model_config, params, masks, runs, compaction)
    layout, x, start = runs.layout, stream, 0
    for stack in found:
        layers = len(jax.tree.leaves(stack.inputs)[0])

        def layer(index: jax.Array, x: jax.Array, stack: Stack = stack) -> jax.Array:
            return stack.layer(layout, x, jax.tree.map(lambda leaf: leaf[index], stack.inputs))

        x = jax.lax.fori_loop(jnp.clip(first - start, 0, layers), layers, layer, x)
        start += layers
    return unembed(model_config, params, x[layout.answers])


@exact
def logits_by_token(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    heads: jax.Array,
    mlps: jax.Array,
) -> jax.Array:
    """The logits of a circuit whose heads and MLPs have a gate for each token.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity, which act as well.
      runs: B prompts of K tokens with their plain passes.
      heads: [L, K, H] gates of heads.
      mlps: [L, K] gates of MLPs.

    Returns:
      [B, V].
    """
    (part,), (stack,) = _stacks(model_config, params, masks, runs, None)
    layout = runs.layout

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        own, head, mlp = inputs
        gates = {"attn_z": head[..., None], "mlp_out": mlp[:, None]}

        def write(site: str, value: jax.Array) -> jax.Array:
            return value * gates[site] if site in gates else value

        return stack.layer(layout, x, own, Hooks(write=write)), None

    other = runs.corrupted.embedding
    x = mixed_embedding(model_config, params, part, runs.clean, other, layout)
    x, _ = jax.lax.scan(layer, x, (stack.inputs, heads, mlps))
    return unembed(model_config, params, x[layout.answers])
