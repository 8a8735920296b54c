"""A circuit of nodes with a gate for each token: where in a prompt its heads and MLPs act."""

from __future__ import annotations

from typing import Any

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.layers import Hooks
from mgnp_jax.passes.node_forward import mixed_embedding
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segments import stacks
from mgnp_jax.types import Masks, Params


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
    (stack,) = stacks(model_config, params, [masks], runs.corrupted, None)
    layout = runs.layout

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        own, head, mlp = inputs
        gates = {"attn_z": head[..., None], "mlp_out": mlp[:, None]}

        def write(site: str, value: jax.Array) -> jax.Array:
            return value * gates[site] if site in gates else value

        return stack.layer(layout, x, own, Hooks(write=write)), None

    other = runs.corrupted.embedding
    x = mixed_embedding(model_config, params, masks, runs.clean, other, layout)
    x, _ = jax.lax.scan(layer, x, (stack.inputs, heads, mlps))
    return unembed(model_config, params, x[layout.answers])
