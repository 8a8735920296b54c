"""What each node does alone: the empty circuit, and the node with what it needs in order to act."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence.chunks import figures
from mgnp_jax.evidence.removal import Nodes
from mgnp_jax.masks.granularities import (
    ATTENTION_NEURONS,
    EMBEDDING,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.masks.hierarchy import kept_alone
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.attribution import clean_embedding
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_values import SiteValues, site_gates
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.single_nodes import EmptyRun, empty_run, first_order_alone, single_residual
from mgnp_jax.types import Masks, Params


def nothing_kept(
    model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns
) -> EmptyRun:
    """The empty circuit: clean embeddings, unless they have a gate, and corrupted values.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: of the circuit, which may have a gate for the embedding.
      runs: B prompts with their plain passes.
    """
    embedding = runs.corrupted.embedding
    if EMBEDDING not in masks:
        embedding = clean_embedding(model_config, params, runs)
    return empty_run(model_config, params, runs, embedding, embedding[runs.layout.answers])


def gates_alone(model_config: ModelConfig, nodes: Nodes) -> SiteValues:
    """Gates of one layer for each node of it alone, [J, …] as `site_gates` has them.

    Args:
      model_config: the model's shape.
      nodes: J of them.
    """
    found: list[Any] = []
    for name, place in zip(nodes.names, nodes.places, strict=True):
        masks = kept_alone(model_config, name, place)
        found.append({n: m[nodes.layer].astype(np.float32) for n, m in masks.items()})
    found = nodes.filled(found)
    stacked: Any = {name: np.stack([each[name] for each in found]) for name in found[0]}
    return site_gates(stacked)


@functools.partial(jax.jit, static_argnums=0)
@exact
def empty_gradients(
    model_config: ModelConfig, params: Params, run: EmptyRun, runs: CachedRuns
) -> jax.Array:
    """Gradients of figures of the empty circuit in its residual stream, [2, B, D].

    Args:
      model_config: the model's shape.
      params: its weights.
      run: in which no node is kept.
      runs: B prompts.
    """

    def measured(residual: jax.Array) -> jax.Array:
        return figures(unembed(model_config, params, residual), runs).sum(1)

    _, pull = jax.vjp(measured, run.residual)
    return jax.vmap(pull)(jnp.eye(2, dtype=jnp.float32))[0]


def alone(model_config: ModelConfig, params: Params, run: EmptyRun, nodes: Nodes) -> jax.Array:
    """What the logits are read from in circuits of one node each, [J, B, D].

    Args:
      model_config: the model's shape.
      params: its weights.
      run: in which no node is kept.
      nodes: J of them.
    """
    gates = gates_alone(model_config, nodes)
    return single_residual(model_config, params, run, np.int32(nodes.layer), gates)


def first_order(
    model_config: ModelConfig, params: Params, run: EmptyRun, gradient: jax.Array
) -> dict[str, np.ndarray]:
    """What figures change by if neurons join, by their gradients.

    Args:
      model_config: the model's shape.
      params: its weights.
      run: in which no node is kept.
      gradient: [2, B, D] of the figures, weighted by prompt.

    Returns:
      [2, …] by granularity, summed over prompts.
    """
    found = jax.device_get(first_order_alone(model_config, params, run, gradient))
    names = (ATTENTION_NEURONS, MLP_HIDDEN, MLP_OUTPUT)
    return {name: leaf.swapaxes(0, 1) for name, leaf in zip(names, found, strict=True)}
