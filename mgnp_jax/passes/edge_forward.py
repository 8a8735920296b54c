"""Forward pass at edge level: every reader sees a mixture of its own of what earlier nodes wrote.

A reader's residual stream is the corrupted run's, and for each earlier writer the gated difference
between what it writes and what it wrote there, which is equation 5 on edges. Layers run under one
`lax.scan` over a buffer of these differences. They are written once and stay, so the gradient walks
back over the same buffer: it keeps W differences and their gradients, not a copy for each layer.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import LOGITS_EDGES, first_writer, full_edges, writer_count
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.edge_layers import (
    EdgeConstants,
    LayerInputs,
    Stream,
    earlier_gates,
    edge_constants,
    gate_gradients,
    layer_inputs,
    layer_reads,
    layer_writes,
    through_layer,
)
from mgnp_jax.passes.edge_reads import seen_back, seen_by_logits, seen_by_logits_back
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Masks, Params


def edge_logits(
    model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns
) -> jax.Array:
    """The logits of a circuit of edges at the answer position, differentiable in the masks.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by kind of reader, see `masks.edges.READERS`, in [0, 1].
      runs: B prompts with their plain passes; of the corrupted prompts, no constants.

    Returns:
      [B, V].
    """
    constants = edge_constants(model_config, params, runs)
    return unembed(model_config, params, _residual(model_config, masks, constants))


class WholeRun(NamedTuple):
    """What an edge pass has on its way, where every edge is kept or in a circuit.

    Attributes:
      written: [W, K, D] how what was written differs from the corrupted run.
      before: [L, K, D] the corrupted residual stream before each layer.
    """

    written: jax.Array
    before: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def whole_run(
    model_config: ModelConfig, params: Params, runs: CachedRuns, masks: Masks | None = None
) -> WholeRun:
    """Runs an edge pass, by default one in which every edge is kept.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: prompts with their plain passes.
      masks: gates by kind of reader; None for all edges.
    """
    constants = edge_constants(model_config, params, runs)
    masks = full_edges(model_config) if masks is None else masks
    return WholeRun(*_run(model_config, masks, constants)[1])


@exact
def edge_logits_after(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    whole: WholeRun,
    first: jax.Array,
) -> jax.Array:
    """`edge_logits` of a circuit that keeps the same edges into the layers before some layer.

    Those layers are not run again. Not differentiable.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by kind of reader.
      runs: B prompts with their plain passes.
      whole: of the same prompts; of the circuit that keeps the same edges into earlier layers.
      first: [] int, the first layer that is run.

    Returns:
      [B, V].
    """
    constants = edge_constants(model_config, params, runs)
    inputs = layer_inputs(model_config, masks, constants)

    def layer(index: jax.Array, stream: Stream) -> Stream:
        own = jax.tree.map(lambda leaf: leaf[index], inputs)
        return through_layer(model_config, constants, stream, own)

    stream = (whole.written, whole.before[first])
    stream = jax.lax.fori_loop(first, model_config.layers, layer, stream)
    return unembed(model_config, params, _read_out(model_config, masks, constants, stream))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _residual(model_config: ModelConfig, masks: Masks, constants: EdgeConstants) -> jax.Array:
    """[B, D] what the logits are read from; its gradient is that in the masks alone."""
    return _run(model_config, masks, constants)[0]


@exact
def _run(
    model_config: ModelConfig, masks: Masks, constants: EdgeConstants
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """[B, D]; the buffer [W, K, D], and the corrupted residual stream before each layer."""
    embedding, corrupted = constants.embedding, constants.corrupted
    written = jnp.zeros((writer_count(model_config), *embedding.shape), embedding.dtype)
    written = written.at[0].set(embedding - corrupted.embedding)

    def layer(stream: Stream, inputs: LayerInputs) -> tuple[Stream, jax.Array]:
        return through_layer(model_config, constants, stream, inputs), stream[1]

    stream, before = jax.lax.scan(
        layer, (written, corrupted.embedding), layer_inputs(model_config, masks, constants)
    )
    return _read_out(model_config, masks, constants, stream), (stream[0], before)


def _read_out(
    model_config: ModelConfig, masks: Masks, constants: EdgeConstants, stream: Stream
) -> jax.Array:
    """[B, D] the residual stream after the last layer, as the logits see it."""
    written, beside = stream
    gates, answers = masks[LOGITS_EDGES].astype(written.dtype), constants.layout.answers
    more = seen_by_logits(model_config, constants.norms, gates, written, answers)
    return beside[answers] + more


def _forwards(model_config: ModelConfig, masks: Masks, constants: EdgeConstants) -> tuple[Any, Any]:
    residual, kept = _run(model_config, masks, constants)
    return residual, (masks, constants, kept)


@exact
def _backwards(model_config: ModelConfig, saved: Any, gradient: jax.Array) -> tuple[Masks, None]:
    masks, constants, (written, before) = saved
    norms, gates = constants.norms, masks[LOGITS_EDGES]
    answers = constants.layout.answers
    down, last = seen_by_logits_back(
        model_config, norms, gates.astype(written.dtype), written, answers, gradient
    )
    last = last.astype(gates.dtype)

    def layer(down: jax.Array, inputs: Any) -> tuple[jax.Array, Masks]:
        inputs, beside = inputs
        writes = functools.partial(layer_writes, model_config, constants.layout, inputs)
        reads = layer_reads(model_config, constants, inputs, (written, beside))
        (heads, _), pull = jax.vjp(writes, reads)
        first = first_writer(model_config, inputs.index)
        own = jax.lax.dynamic_slice_in_dim(down, first, len(heads) + 1)
        (back,) = pull((own[:-1], own[-1:]))
        gates = earlier_gates(model_config, inputs, written.dtype)
        down, products = seen_back(
            *(model_config, norms, gates, written, inputs.index), back.earlier, down
        )
        return down, gate_gradients(model_config, inputs, products, back.own)

    inputs = (layer_inputs(model_config, masks, constants), before)
    _, found = jax.lax.scan(layer, down, inputs, reverse=True)
    return {**found, LOGITS_EDGES: last}, None


_residual.defvjp(_forwards, _backwards)
