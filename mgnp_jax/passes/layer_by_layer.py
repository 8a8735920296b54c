"""A circuit of nodes layer by layer, from any layer on: what is left of each layer, and no more.

A scan needs layers of one shape. Where a circuit is run a thousand times with one node changed, it
pays to call each layer by itself, as narrow as its own nodes are: nothing is filled up, layers
without nodes cost nothing, those before the change are not run again, and after the last layer that
has heads no token but the answer's is. Not differentiable.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    EMBEDDING,
    GRANULARITIES,
    MLP_HIDDEN,
    NEURONS,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction, compacted, what_stays
from mgnp_jax.passes.narrowed_runs import Prompts, narrowed_runs
from mgnp_jax.passes.node_forward import mixed_embedding
from mgnp_jax.passes.node_values import SiteValues, site_gates
from mgnp_jax.passes.packing import Layout
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segment_plan import Plan, heads_run
from mgnp_jax.passes.segments import Stack, narrowed_shape
from mgnp_jax.types import Masks, Params

PARTS = 8
"""Widths of an MLP that are told apart: each is compiled by itself."""


class Apart(NamedTuple):
    """A circuit layer by layer.

    Attributes:
      masks: float32 NumPy gates by granularity.
      left: what is left of the model, a segment for each layer.
      gates: of each layer, [1, …].
    """

    masks: dict[str, np.ndarray]
    left: Compaction
    gates: list[SiteValues]

    def gates_of(self, layer: int, masks: Mapping[str, Any]) -> SiteValues:
        """Gates of what is left of one layer, [1, …].

        Args:
          layer: which.
          masks: NumPy gates by granularity, of what is left or less.
        """
        segment = self.left.segments[layer]
        part: dict[str, Any] = {name: masks[name][layer][None] for name in GRANULARITIES}
        heads, hidden = np.asarray(segment.heads[0]), np.asarray(segment.hidden[0])
        part[ATTENTION_HEADS] = part[ATTENTION_HEADS][:, heads] * np.asarray(segment.has_head)
        part[ATTENTION_NEURONS] = part[ATTENTION_NEURONS][:, heads]
        part[MLP_HIDDEN] = part[MLP_HIDDEN][:, hidden] * np.asarray(segment.has_hidden)
        return site_gates(part)

    def prompts(self, model_config: ModelConfig, runs: CachedRuns) -> Prompts:
        """Prompts as the circuit runs them.

        Args:
          model_config: the model's shape.
          runs: of the whole model.
        """
        narrow = narrowed_runs(model_config, self.left, runs)
        has_heads = [bool(segment.heads.size) for segment in self.left.segments]
        return Prompts.of(narrow, max((i + 1 for i, has in enumerate(has_heads) if has), default=0))


def apart(model_config: ModelConfig, params: Params, masks: Masks) -> Apart:
    """Leaves out of each layer what a circuit does not use.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: bool arrays by granularity, consistent with the hierarchy.
    """
    c = model_config
    left = what_stays({name: np.asarray(masks[name], bool) for name in NEURONS})
    heads, hidden = heads_run(c, left[ATTENTION_HEADS].sum(1)), left[MLP_HIDDEN].sum(1)
    # Few shapes: powers of two, and so many parts of an MLP.
    heads = [min(1 << int(n - 1).bit_length(), c.heads) if n else 0 for n in heads.tolist()]
    part = -(-c.mlp_width // PARTS)
    hidden = [min(-(-n // part) * part, c.mlp_width) for n in hidden.tolist()]
    bounds = tuple(range(c.layers + 1))
    # What it costs is not asked of a plan that is not compared with others.
    chosen = Plan(bounds=bounds, heads=tuple(heads), hidden=tuple(hidden), cost=0.0)
    gates = {name: np.asarray(mask, np.float32) for name, mask in masks.items()}
    found = Apart(gates, compacted(c, params, chosen, left), [])
    return found._replace(gates=[found.gates_of(layer, gates) for layer in range(c.layers)])


def streams_apart(
    model_config: ModelConfig, params: Params, circuit: Apart, prompts: Prompts
) -> list[jax.Array]:
    """The circuit's residual stream before each layer and after the last.

    Args:
      model_config: the model's shape.
      params: its weights.
      circuit: it.
      prompts: as `Apart.prompts` has them.

    Returns:
      [K, D] before layers that run K tokens; [B, D] before the others and after the last.
    """
    x = _embedding(model_config, params, circuit.masks.get(EMBEDDING), prompts.runs)[None]
    x = prompts.entering(0, x)
    found = [x[0]]
    for layer, gate in enumerate(circuit.gates):
        x = _run(model_config, circuit, prompts, layer, x, [gate])
        found.append(x[0])
    return found


def changed_from(
    model_config: ModelConfig,
    circuit: Apart,
    prompts: Prompts,
    streams: list[jax.Array],
    layer: int,
    masks: Sequence[Mapping[str, Any]],
) -> jax.Array:
    """The stream after the last layer of circuits that differ from another in one layer.

    Args:
      model_config: the model's shape.
      circuit: the other.
      prompts: as `Apart.prompts` has them.
      streams: of the other, as `streams_apart` found them.
      layer: in which they differ.
      masks: J times NumPy gates by granularity.

    Returns:
      [J, B, D], at the answer position.
    """
    x = jnp.broadcast_to(streams[layer][None], (len(masks), *streams[layer].shape))
    gates = [circuit.gates_of(layer, each) for each in masks]
    for index in range(layer, model_config.layers):
        if index > layer:
            gates = [circuit.gates[index]] * len(masks)
        x = _run(model_config, circuit, prompts, index, x, gates)
    return x


def _run(
    model_config: ModelConfig,
    circuit: Apart,
    prompts: Prompts,
    layer: int,
    x: jax.Array,
    gates: list[SiteValues],
) -> jax.Array:
    """One layer of J circuits: the stream that enters the next."""
    corrupted = prompts.runs.corrupted
    other, prefix, shape = corrupted.values[layer], corrupted.prefix[layer], gates[0]
    if not shape.attn_z.shape[-2] and not shape.mlp_hidden.shape[-1]:
        x = _nothing_left(x, other.attn_out, other.mlp_out)
    else:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *gates)
        weights = circuit.left.segments[layer].weights
        x = _layer(model_config, prompts.layout(layer), x, weights, stacked, other, prefix)
    return prompts.entering(layer + 1, x)


@functools.partial(jax.jit, static_argnums=0)
@exact
def _layer(
    model_config: ModelConfig,
    layout: Layout,
    x: jax.Array,
    weights: Params,
    gates: SiteValues,
    other: SiteValues,
    prefix: Any,
) -> jax.Array:
    """One layer of J circuits: gates are [J, 1, …], what is of the layer [1, …]."""
    weights, other, prefix = jax.tree.map(lambda leaf: leaf[0], (weights, other, prefix))

    def one(x: jax.Array, gate: SiteValues) -> jax.Array:
        gate = jax.tree.map(lambda leaf: leaf[0], gate)
        stack = Stack(narrowed_shape(model_config, gate), None)
        return stack.layer(layout, x, (weights, gate, other, prefix))

    return jax.vmap(one)(x, gates)


@jax.jit
def _nothing_left(x: jax.Array, attention: jax.Array, mlp: jax.Array) -> jax.Array:
    """A layer without nodes: what the corrupted run writes, [1, K, D] each."""
    return x + attention + mlp


@functools.partial(jax.jit, static_argnums=0)
def _embedding(model_config: ModelConfig, params: Params, gate: Any, runs: CachedRuns) -> jax.Array:
    masks = {} if gate is None else {EMBEDDING: gate}
    other = runs.corrupted.embedding
    return mixed_embedding(model_config, params, masks, runs.clean, other, runs.layout)
