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
    read_out,
    through_layer,
)
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.mixture import gate_products, led_back
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Masks, MgnpError, Params


def check_edges(
    model_config: ModelConfig,
    what: str = "edges from heads are not defined; use a method of nodes",
) -> None:
    """Refuses a model whose heads do not read and write each for itself.

    Args:
      model_config: the model's shape.
      what: is not defined then, and what to do, as the end of a sentence.

    Raises:
      MgnpError: if a norm follows attention, or acts on all heads' queries and keys together.
    """
    if model_config.norm_after:
        raise MgnpError(
            "this model has a norm after attention, so that no head alone decides what it writes: "
            f"{what}"
        )
    if model_config.qk_norm == "all":
        raise MgnpError(
            "this model has a norm over the queries of all heads, so that no head reads alone: "
            f"{what}"
        )


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

    Raises:
      MgnpError: if a norm follows attention.
    """
    check_edges(model_config)
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

    Raises:
      MgnpError: if a norm follows attention.
    """
    check_edges(model_config)
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
        return through_layer(model_config, constants.layout, stream, own)

    stream = (whole.written, whole.before[first])
    stream = jax.lax.fori_loop(first, model_config.layers, layer, stream)
    return unembed(model_config, params, read_out(masks, constants.layout, stream))


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
        return through_layer(model_config, constants.layout, stream, inputs), stream[1]

    stream, before = jax.lax.scan(
        layer, (written, corrupted.embedding), layer_inputs(model_config, masks, constants)
    )
    return read_out(masks, constants.layout, stream), (stream[0], before)


def _forwards(model_config: ModelConfig, masks: Masks, constants: EdgeConstants) -> tuple[Any, Any]:
    residual, kept = _run(model_config, masks, constants)
    return residual, (masks, constants, kept)


@exact
def _backwards(model_config: ModelConfig, saved: Any, gradient: jax.Array) -> tuple[Masks, None]:
    masks, constants, (written, before) = saved
    answers, gates = constants.layout.answers, masks[LOGITS_EDGES]
    into = gates.astype(written.dtype)[:, None, None] * gradient[None]
    down = jnp.zeros_like(written).at[:, answers].set(into)
    last = jnp.einsum("bd,wbd->w", gradient, written[:, answers]).astype(gates.dtype)

    def layer(down: jax.Array, inputs: Any) -> tuple[jax.Array, Masks]:
        inputs, beside = inputs
        writes = functools.partial(layer_writes, model_config, constants.layout, inputs)
        (heads, _), pull = jax.vjp(writes, layer_reads(model_config, inputs, (written, beside)))
        first = first_writer(model_config, inputs.index)
        own = jax.lax.dynamic_slice_in_dim(down, first, len(heads) + 1)
        (back,) = pull((own[:-1], own[-1:]))
        products = gate_products(back.earlier, written)
        gates = earlier_gates(model_config, inputs, written.dtype)
        found = gate_gradients(model_config, inputs, products, back.own)
        return led_back(down, gates, back.earlier), found

    inputs = (layer_inputs(model_config, masks, constants), before)
    _, found = jax.lax.scan(layer, down, inputs, reverse=True)
    return {**found, LOGITS_EDGES: last}, None


_residual.defvjp(_forwards, _backwards)
