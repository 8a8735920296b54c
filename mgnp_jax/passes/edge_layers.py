"""One layer of an edge pass: what its readers see of earlier nodes, and what it writes itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import HEAD_EDGES, LOGITS_EDGES, MLP_EDGES, first_writer
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import embed
from mgnp_jax.passes.layers import Layer
from mgnp_jax.passes.mixture import mixture
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.packing import Layout, attend
from mgnp_jax.types import Masks, Params


class EdgeConstants(NamedTuple):
    """What a pass reads beside the masks.

    Attributes:
      blocks: the layers' weights.
      embedding: [K, D] of the clean prompts.
      corrupted: the corrupted run's values of these tokens.
      layout: where they stand.
    """

    blocks: Params
    embedding: jax.Array
    corrupted: CorruptedRun
    layout: Layout


class LayerInputs(NamedTuple):
    """What one layer reads, beside the buffer; leaves [L, …] before the scan.

    Attributes:
      index: of the layer.
      weights: its.
      gates: of the edges into it, by kind of reader.
      values: the corrupted run's.
      prefix: keys and values of the positions before.
    """

    index: Any
    weights: Params
    gates: Masks
    values: Any
    prefix: Any


Stream = tuple[jax.Array, jax.Array]
"""How what was written differs from the corrupted run [W, K, D]; the corrupted residual [K, D]."""


def edge_constants(model_config: ModelConfig, params: Params, runs: CachedRuns) -> EdgeConstants:
    """What a pass on some prompts reads beside the masks.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: the prompts with their plain passes; of the corrupted ones, no constants.
    """
    assert isinstance(runs.corrupted, CorruptedRun)
    embedding = embed(model_config, params, runs.clean, runs.layout.positions)
    return EdgeConstants(params["blocks"], embedding, runs.corrupted, runs.layout)


def layer_inputs(model_config: ModelConfig, masks: Masks, constants: EdgeConstants) -> LayerInputs:
    """What all layers read, stacked.

    Args:
      model_config: the model's shape.
      masks: gates by kind of reader.
      constants: beside them.
    """
    (values,), (prefix,) = constants.corrupted.values, constants.corrupted.prefix
    return LayerInputs(
        index=jnp.arange(model_config.layers),
        weights=constants.blocks,
        gates={name: gate for name, gate in masks.items() if name != LOGITS_EDGES},
        values=values,
        prefix=prefix,
    )


def through_layer(
    model_config: ModelConfig, layout: Layout, stream: Stream, inputs: LayerInputs
) -> Stream:
    """One layer.

    Args:
      model_config: the model's shape.
      layout: K tokens.
      stream: before it; what later writers wrote is not looked at.
      inputs: of the layer.

    Returns:
      The stream after it.
    """
    written, beside = stream
    heads, mlp = layer_writes(model_config, layout, inputs, beside, inputs.gates, written)
    first = first_writer(model_config, inputs.index)
    written = jax.lax.dynamic_update_slice_in_dim(written, heads, first, 0)
    written = jax.lax.dynamic_update_slice_in_dim(written, mlp, first + len(heads), 0)
    return written, beside + inputs.values.attn_out + inputs.values.mlp_out


def read_out(masks: Masks, layout: Layout, stream: Stream) -> jax.Array:
    """What the logits are read from.

    Args:
      masks: gates by kind of reader.
      layout: K tokens of B prompts.
      stream: after the last layer.

    Returns:
      [B, D] residual stream at the answer position.
    """
    written, beside = stream
    gates, answers = masks[LOGITS_EDGES].astype(written.dtype), layout.answers
    return beside[answers] + jnp.einsum("w,wbd->bd", gates, written[:, answers])


def layer_writes(
    model_config: ModelConfig,
    layout: Layout,
    inputs: LayerInputs,
    beside: jax.Array,
    gates: Masks,
    written: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """How what a layer writes differs from the corrupted run: heads [H,K,D], MLP [1,K,D].

    Args:
      model_config: the model's shape.
      layout: K tokens.
      inputs: of the layer.
      beside: [K, D] the corrupted residual stream before it.
      gates: of the edges into it.
      written: [W, K, D] how what was written differs; later writers' are not looked at.
    """
    layer, other = Layer(model_config, inputs.weights), inputs.values
    first = first_writer(model_config, inputs.index)
    earlier = jnp.arange(len(written)) < first
    dtype = written.dtype

    def read(gate: jax.Array) -> jax.Array:
        gate = jnp.where(earlier, gate, jnp.zeros((), gate.dtype)).astype(dtype)
        return beside[None] + mixture(gate, written)

    together = read(jnp.concatenate([gates[name] for name in HEAD_EDGES]))
    stops = (model_config.heads, model_config.heads + model_config.kv_heads)
    each = jnp.split(layer.step("attn_normed", together), stops)
    q, k, v = layer.step("attn_project_each", *each, layout.positions)
    has_prefix = layout.prefix.shape[1] > 0
    z = attend(layout, q, k, v, inputs.prefix if has_prefix else None)
    heads = layer.step("attn_out_each", z - other.attn_z)
    (x,) = read(gates[MLP_EDGES][None])
    if not model_config.parallel:
        own = jax.lax.dynamic_slice_in_dim(gates[MLP_EDGES], first, len(heads)).astype(dtype)
        x += other.attn_out + jnp.einsum("h,hkd->kd", own, heads)
    mlp = layer.step("mlp_write", layer.step("mlp_out", layer.step("mlp_hidden", x)))
    return heads, (mlp - other.mlp_out)[None]
