"""One layer of an edge pass: what its readers see of earlier nodes, and what it writes itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import HEAD_EDGES, LOGITS_EDGES, MLP_EDGES, first_writer
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.edge_reads import Norms, norms_of, seen
from mgnp_jax.passes.embeddings import embed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.mixture import mixture
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.packing import Layout
from mgnp_jax.types import Masks, Params


class EdgeConstants(NamedTuple):
    """What a pass reads beside the masks.

    Attributes:
      blocks: the layers, see `stacked_layers`.
      embedding: [K, D] of the clean prompts.
      corrupted: the corrupted run's values of these tokens.
      layout: where they stand.
    """

    blocks: Params
    embedding: jax.Array
    corrupted: CorruptedRun
    layout: Layout

    @property
    def norms(self) -> Norms | None:
        """Those that follow attention, if any do."""
        return norms_of(self.blocks, self.corrupted)


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
"""How what was written differs from the corrupted run [W, K, D], of heads before a norm after
attention, see `edge_reads`; the corrupted residual [K, D]."""


def edge_constants(model_config: ModelConfig, params: Params, runs: CachedRuns) -> EdgeConstants:
    """What a pass on some prompts reads beside the masks.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: the prompts with their plain passes; of the corrupted ones, no constants.
    """
    assert isinstance(runs.corrupted, CorruptedRun)
    embedding = embed(model_config, params, runs.clean, runs.layout.positions)
    blocks = stacked_layers(model_config, params)
    return EdgeConstants(blocks, embedding, runs.corrupted, runs.layout)


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
    model_config: ModelConfig, constants: EdgeConstants, stream: Stream, inputs: LayerInputs
) -> Stream:
    """One layer.

    Args:
      model_config: the model's shape.
      constants: of the pass.
      stream: before it; what later writers wrote is not looked at.
      inputs: of the layer.

    Returns:
      The stream after it.
    """
    written, beside = stream
    reads = layer_reads(model_config, constants, inputs, stream)
    heads, mlp = layer_writes(model_config, constants.layout, inputs, reads)
    first = first_writer(model_config, inputs.index)
    written = jax.lax.dynamic_update_slice_in_dim(written, heads, first, 0)
    written = jax.lax.dynamic_update_slice_in_dim(written, mlp, first + len(heads), 0)
    return written, beside + inputs.values.attn_out + inputs.values.mlp_out


class Reads(NamedTuple):
    """What the readers of a layer see.

    Attributes:
      earlier: [R + 1, K, D] residual streams of the heads' queries, keys and values and of the MLP,
        of what earlier layers wrote.
      own: [H] gates of the MLP's edges from the heads of its layer.
    """

    earlier: jax.Array
    own: jax.Array


def earlier_gates(model_config: ModelConfig, inputs: LayerInputs, dtype: Any) -> jax.Array:
    """Gates of the edges into a layer from earlier ones, those from others closed.

    Args:
      model_config: the model's shape.
      inputs: of the layer.
      dtype: of the gates.

    Returns:
      [R + 1, W]: of heads by query, key and value, and of the MLP.
    """
    parts = [inputs.gates[name] for name in HEAD_EDGES]
    gates = jnp.concatenate([*parts, inputs.gates[MLP_EDGES][None]])
    return jnp.where(_earlier(model_config, inputs, gates), gates, 0).astype(dtype)


def _earlier(model_config: ModelConfig, inputs: LayerInputs, gates: jax.Array) -> jax.Array:
    """[1, W] which writers are of earlier layers."""
    return (jnp.arange(gates.shape[1]) < first_writer(model_config, inputs.index))[None]


def own_gates(model_config: ModelConfig, inputs: LayerInputs, dtype: Any) -> jax.Array:
    """Gates of the MLP's edges from the heads of its layer, [H].

    Args:
      model_config: the model's shape.
      inputs: of the layer.
      dtype: of the gates.
    """
    first = first_writer(model_config, inputs.index)
    gates = inputs.gates[MLP_EDGES]
    return jax.lax.dynamic_slice_in_dim(gates, first, model_config.heads).astype(dtype)


def layer_reads(
    model_config: ModelConfig, constants: EdgeConstants, inputs: LayerInputs, stream: Stream
) -> Reads:
    """What the readers of a layer see.

    Args:
      model_config: the model's shape.
      constants: of the pass.
      inputs: of the layer.
      stream: before it; what later writers wrote is not looked at.
    """
    written, beside = stream
    gates = earlier_gates(model_config, inputs, written.dtype)
    own = own_gates(model_config, inputs, written.dtype)
    more = seen(model_config, constants.norms, gates, written, inputs.index)
    return Reads(beside[None] + more, own)


def gate_gradients(
    model_config: ModelConfig, inputs: LayerInputs, products: jax.Array, own: jax.Array
) -> Masks:
    """Gradients in the gates of a layer by kind of reader, of their own dtype.

    Args:
      model_config: the model's shape.
      inputs: of the layer.
      products: [R + 1, W] in those from any writer, as if each were earlier.
      own: [H] in those of the MLP from the heads of its layer.
    """
    products = jnp.where(_earlier(model_config, inputs, products), products, 0)
    stops = (model_config.heads, model_config.heads + model_config.kv_heads)
    *heads, mlp = (*jnp.split(products[:-1], stops), products[-1])
    mlp = jax.lax.dynamic_update_slice_in_dim(mlp, own, first_writer(model_config, inputs.index), 0)
    found = dict(zip((*HEAD_EDGES, MLP_EDGES), (*heads, mlp)))
    return {name: leaf.astype(inputs.gates[name].dtype) for name, leaf in found.items()}


def layer_writes(
    model_config: ModelConfig, layout: Layout, inputs: LayerInputs, reads: Reads
) -> tuple[jax.Array, jax.Array]:
    """How what a layer writes differs from the corrupted run: heads [H,K,D], MLP [1,K,D].

    That of heads is before a norm that follows attention, see `edge_reads`.

    Args:
      model_config: the model's shape.
      layout: K tokens.
      inputs: of the layer.
      reads: what its readers see.
    """
    layer, other = Layer(model_config, inputs.weights), inputs.values
    stops = (model_config.heads, model_config.heads + model_config.kv_heads)
    each = jnp.split(layer.step("attn_normed", reads.earlier[:-1]), stops)
    q, k, v = layer.qkv_each(layout, *each)
    has_prefix = layout.prefix.shape[1] > 0
    z = layer.attend(layout, q, k, v, inputs.prefix if has_prefix else None)
    heads = layer.step("attn_out_each", z - other.attn_z)
    x = reads.earlier[-1]
    if not model_config.parallel:
        own = mixture(reads.own[None], heads)[0]
        if other.attn_projected is None:
            x += other.attn_out + own
        else:
            x += layer.step("attn_write", other.attn_projected + own)
    mlp = layer.step("mlp_write", layer.step("mlp_out", layer.step("mlp_hidden", x)))
    return heads, (mlp - other.mlp_out)[None]
