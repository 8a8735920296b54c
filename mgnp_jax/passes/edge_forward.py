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

from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    first_writer,
    writer_count,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import embed, unembed
from mgnp_jax.passes.layers import Layer
from mgnp_jax.passes.mixture import mixture
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.packing import Layout, attend
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Masks, MgnpError, Params


class _Constants(NamedTuple):
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


class _Inputs(NamedTuple):
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


def check_edges(model_config: ModelConfig) -> None:
    """Refuses a model whose heads have no part of their own in what attention writes.

    Args:
      model_config: the model's shape.

    Raises:
      MgnpError: if a norm follows attention.
    """
    if model_config.norm_after:
        raise MgnpError(
            "this model has a norm after attention, so that no head alone decides what it writes: "
            "edges from heads are not defined; use a method of nodes"
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
    assert isinstance(runs.corrupted, CorruptedRun)
    embedding = embed(model_config, params, runs.clean, runs.layout.positions)
    constants = _Constants(params["blocks"], embedding, runs.corrupted, runs.layout)
    return unembed(model_config, params, _residual(model_config, masks, constants))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _residual(model_config: ModelConfig, masks: Masks, constants: _Constants) -> jax.Array:
    """[B, D] what the logits are read from; its gradient is that in the masks alone."""
    return _run(model_config, masks, constants)[0]


@exact
def _run(
    model_config: ModelConfig, masks: Masks, constants: _Constants
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """[B, D]; the buffer [W, K, D], and the corrupted residual stream before each layer."""
    embedding, corrupted = constants.embedding, constants.corrupted
    written = jnp.zeros((writer_count(model_config), *embedding.shape), embedding.dtype)
    written = written.at[0].set(embedding - corrupted.embedding)

    def layer(carry: tuple[jax.Array, jax.Array], inputs: _Inputs) -> tuple[Any, jax.Array]:
        written, beside = carry
        heads, mlp = _writes(model_config, constants.layout, inputs, beside, inputs.gates, written)
        first = first_writer(model_config, inputs.index)
        written = jax.lax.dynamic_update_slice_in_dim(written, heads, first, 0)
        written = jax.lax.dynamic_update_slice_in_dim(written, mlp, first + len(heads), 0)
        after = beside + inputs.values.attn_out + inputs.values.mlp_out
        return (written, after), beside

    (written, beside), before = jax.lax.scan(
        layer, (written, corrupted.embedding), _inputs(model_config, masks, constants)
    )
    answers = constants.layout.answers
    gates = masks[LOGITS_EDGES].astype(written.dtype)
    residual = beside[answers] + jnp.einsum("w,wbd->bd", gates, written[:, answers])
    return residual, (written, before)


def _inputs(model_config: ModelConfig, masks: Masks, constants: _Constants) -> _Inputs:
    (values,), (prefix,) = constants.corrupted.values, constants.corrupted.prefix
    return _Inputs(
        index=jnp.arange(model_config.layers),
        weights=constants.blocks,
        gates={name: gate for name, gate in masks.items() if name != LOGITS_EDGES},
        values=values,
        prefix=prefix,
    )


def _writes(
    model_config: ModelConfig,
    layout: Layout,
    inputs: _Inputs,
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


def _forwards(model_config: ModelConfig, masks: Masks, constants: _Constants) -> tuple[Any, Any]:
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
        writes = functools.partial(_writes, model_config, constants.layout, inputs, beside)
        (heads, _), pull = jax.vjp(writes, inputs.gates, written)
        first = first_writer(model_config, inputs.index)
        own = jax.lax.dynamic_slice_in_dim(down, first, len(heads) + 1)
        found, more = pull((own[:-1], own[-1:]))
        return down + more, found

    inputs = (_inputs(model_config, masks, constants), before)
    _, found = jax.lax.scan(layer, down, inputs, reverse=True)
    return {**found, LOGITS_EDGES: last}, None


_residual.defvjp(_forwards, _backwards)
