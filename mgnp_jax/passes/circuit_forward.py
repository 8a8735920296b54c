"""The logits of a circuit, whatever level it is at."""

from __future__ import annotations

import jax

from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns, masked_logits
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.edge_forward import edge_logits
from mgnp_jax.types import Masks, Params


def circuit_logits(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    compaction: Compaction | None = None,
) -> jax.Array:
    """The circuit's logits at the answer position.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates of nodes or edges.
      runs: B prompts with their plain passes.
      compaction: what is left of the model, for nodes; None for all of it.

    Returns:
      [B, V].
    """
    if level_of(masks) is EDGE:
        return edge_logits(model_config, params, masks, runs)
    parts = masks if compaction is None else compaction.masks(masks)
    segments = None if compaction is None else compaction.segments
    return masked_logits(model_config, params, parts, runs, segments=segments)
