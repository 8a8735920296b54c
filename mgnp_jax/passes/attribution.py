"""First-order effects of all edges or nodes at once: differences times gradients.

What one writer or node changes is its clean value's difference to its corrupted one; what that is
worth is the gradient where it acts (`taps`), which may be a sum over several passes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import LOGITS_EDGES, first_writer, writer_count
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.edge_forward import check_edges
from mgnp_jax.passes.layers import Layer
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.taps import Clean, Taps
from mgnp_jax.types import Masks, Params


@functools.partial(jax.jit, static_argnums=0)
@exact
def edge_products(
    model_config: ModelConfig, params: Params, clean: Clean, runs: CachedRuns, found: Taps
) -> Masks:
    """Scores of edges: the writer's difference times the gradient at the reader's input.

    Args:
      model_config: the model's shape.
      params: its weights.
      clean: of these prompts.
      runs: B prompts of K tokens.
      found: gradients at the readers.

    Returns:
      Float32 by kind of reader, summed over prompts, positions and width; edges that the model does
      not have mean nothing.
    """
    check_edges(model_config)
    written = jnp.zeros((writer_count(model_config), *clean.embedding.shape), jnp.float32)
    written = written.at[0].set(clean.embedding - runs.corrupted.embedding)

    def layer(written: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        index, weights, sites = inputs
        heads = Layer(model_config, weights).step("attn_out_each", sites.attn_z)
        first = first_writer(model_config, index)
        written = jax.lax.dynamic_update_slice_in_dim(written, heads, first, 0)
        both = (written, sites.mlp_out[None], first + len(heads))
        return jax.lax.dynamic_update_slice_in_dim(*both, 0), None

    layers = jnp.arange(model_config.layers)
    written, _ = jax.lax.scan(layer, written, (layers, params["blocks"], clean.sites))
    scores = {
        name: jnp.einsum("...kd,wkd->...w", gradient, written)
        for name, gradient in found.reads.items()
        if name != LOGITS_EDGES
    }
    last, answers = found.reads[LOGITS_EDGES], runs.layout.answers
    return scores | {LOGITS_EDGES: jnp.einsum("bd,wbd->w", last, written[:, answers])}


@jax.jit
def node_products(clean: Clean, found: Taps) -> Masks:
    """Scores of nodes: their difference times the gradient where they act.

    Args:
      clean: of the prompts.
      found: gradients at the sites.

    Returns:
      Float32 by granularity, summed over prompts and positions; a head's is that of all its
      neurons, a block's that of all it writes.
    """
    effect = jax.tree.map(
        lambda value, gradient: (value * gradient).sum(1), clean.sites, found.sites
    )
    return {
        ATTENTION_BLOCKS: effect.attn_out.sum(-1),
        MLP_BLOCKS: effect.mlp_out.sum(-1),
        ATTENTION_HEADS: effect.attn_z.sum(-1),
        ATTENTION_NEURONS: effect.attn_z,
        MLP_HIDDEN: effect.mlp_hidden,
        MLP_OUTPUT: effect.mlp_out,
    }
