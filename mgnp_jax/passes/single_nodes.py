"""Nodes that are kept alone: each reads the stream in which no node is kept, and none reads it.

What a node alone changes is what it writes at the answer position, so the layers are run once for
all nodes, and each node costs its own output and the unembedding.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Params


@struct.dataclass
class EmptyRun:
    """What nodes would write if no other were kept, at the answer position.

    Attributes:
      residual: [B, D] after the last layer, no node kept.
      heads: [L, B, H, E] how heads' outputs differ from the corrupted run's.
      hidden: [L, B, F] how MLP neurons differ from them.
      projected: [L, B, D] twice, what the corrupted run's attention and its MLP write before the
        norm that follows; None twice where none does.
    """

    residual: jax.Array
    heads: jax.Array
    hidden: jax.Array
    projected: tuple[jax.Array, jax.Array] | tuple[None, None]


@functools.partial(jax.jit, static_argnums=0)
@exact
def empty_run(
    model_config: ModelConfig,
    params: Params,
    runs: CachedRuns,
    embedding: jax.Array,
    written: jax.Array,
) -> EmptyRun:
    """Runs all nodes on the stream in which none of them is kept.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: B prompts of K tokens with their plain passes.
      embedding: [K, D] that nodes read.
      written: [B, D] embedding that the logits are read from, at the answer position.
    """
    layout, ((values,), (prefix,)) = runs.layout, (runs.corrupted.values, runs.corrupted.prefix)
    has_prefix, answers = layout.prefix.shape[1] > 0, layout.answers

    def layer(both: Any, inputs: Any) -> tuple[Any, Any]:
        x, residual = both
        weights, other, prefix = inputs
        own = Layer(model_config, weights)
        q, k, v = own.qkv(layout, x)
        z = own.attend(layout, q, k, v, prefix if has_prefix else None)
        read = x if model_config.parallel else x + other.attn_out
        hidden = own.step("mlp_hidden", read[answers])
        projected = jax.tree.map(lambda x: x[answers], (other.attn_projected, other.mlp_projected))
        found = (z - other.attn_z)[answers], hidden - other.mlp_hidden[answers], projected
        more = other.attn_out + other.mlp_out
        return (x + more, residual + more[answers]), found

    inputs = (stacked_layers(model_config, params), values, prefix)
    (_, residual), found = jax.lax.scan(layer, (embedding, written), inputs)
    return EmptyRun(residual, *found)


def _more_written(
    layer: Layer, method: str, difference: jax.Array, projected: jax.Array | None
) -> jax.Array:
    """[B, D] what is written more, by `attn_out` or `mlp_out` of a difference of its inputs."""
    own = layer.linear(method, difference)
    if projected is None:
        return own
    write = {"attn_out": "attn_write", "mlp_out": "mlp_write"}[method]
    return layer.step(write, projected + own) - layer.step(write, projected)


@functools.partial(jax.jit, static_argnums=0)
@exact
def single_residual(
    model_config: ModelConfig,
    params: Params,
    run: EmptyRun,
    layer: jax.Array,
    gates: SiteValues,
) -> jax.Array:
    """The stream where nodes of one layer's attention, or of its MLP, are kept and nothing else.

    Args:
      model_config: the model's shape.
      params: its weights.
      run: in which none is kept.
      layer: [] int.
      gates: [J, …] of this layer, either of attention or of the MLP; the others zero.

    Returns:
      [J, B, D] after the last layer, at the answer position.
    """
    found = (stacked_layers(model_config, params), run.heads, run.hidden, run.projected)
    weights, heads, hidden, projected = jax.tree.map(lambda leaf: leaf[layer], found)
    own = Layer(model_config, weights)

    def one(gates: SiteValues) -> jax.Array:
        attention = _more_written(own, "attn_out", gates.attn_z[None] * heads, projected[0])
        mlp = _more_written(own, "mlp_out", gates.mlp_hidden[None] * hidden, projected[1])
        more = gates.attn_out[None] * attention + gates.mlp_out[None] * mlp
        return run.residual + more

    return jax.vmap(one)(gates)


@functools.partial(jax.jit, static_argnums=0)
@exact
def first_order_alone(
    model_config: ModelConfig, params: Params, run: EmptyRun, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """First-order effects of single neurons, all others of what contains them kept or not.

    An attention neuron is alone in its head; a hidden neuron has all outputs of its MLP, an output
    all its hidden neurons.

    Args:
      model_config: the model's shape.
      params: its weights.
      run: in which none is kept.
      gradient: [M, B, D] of figures in the residual stream after the last layer.

    Returns:
      Summed over prompts: attention neurons [L, M, H, E], hidden neurons [L, M, F] and outputs
      [L, M, D].
    """

    def layer(_: None, inputs: Any) -> tuple[None, Any]:
        weights, heads, hidden, projected = inputs
        own = Layer(model_config, weights)
        found = []
        for step, value, before in zip(("attn_out", "mlp_out"), (heads, hidden), projected):
            write = functools.partial(_more_written, own, step, projected=before)
            # Neurons join where no other is kept, outputs where all hidden neurons are.
            written, pull = write(value), jax.vjp(write, jnp.zeros_like(value))[1]
            (back,) = jax.vmap(pull)(gradient)
            found.append((back * value[None]).sum(1))
        return None, (*found, (gradient * written[None]).sum(1))

    inputs = (stacked_layers(model_config, params), run.heads, run.hidden, run.projected)
    return jax.lax.scan(layer, None, inputs)[1]
