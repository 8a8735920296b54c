"""How large a circuit is: nodes per granularity, parameters, edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.edges import edge_count, existing
from mgnp_jax.masks.granularities import GRANULARITIES, as_bool, full_masks
from mgnp_jax.masks.levels import check_masks, level_of
from mgnp_jax.masks.parameters import parameters_kept, share_kept
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def circuit_sizes(model_config: ModelConfig, masks: Masks) -> dict[str, Any]:
    """Sizes of a circuit, as results.json has them.

    Args:
      model_config: the model's shape.
      masks: binary gates of nodes or edges; what cannot act does not count. Of edges, the nodes
        that they go through are counted, whole.

    Returns:
      `sizes`: granularity → active, total, sparsity in percent. `parameters`: total,
      active, compression_ratio (total / active), prunable_kept. `edges`: total, active, sparsity in
      percent: those between kept nodes, each head reading separately by q, k and v; 32,491 for the
      whole of GPT-2 small, 70,651 for SmolLM2-135M.

    Raises:
      MgnpError: if the masks are of another shape or not binary, or the hierarchy leaves nothing
        of what is open.

    Warns:
      UserWarning: if gates are open that change nothing, see `check_acting`.
    """
    check_masks(model_config, masks)
    masks = as_bool(masks)
    level = level_of(masks)
    level.check_acting(masks, "the masks", 2)
    masks = level.consistent(masks)
    kept = {k: np.asarray(v) for k, v in level.nodes(model_config, masks).items()}
    everything = {k: np.asarray(v, bool) for k, v in full_masks(model_config).items()}
    edges = edge_count(level.edges(model_config, masks))
    all_edges = edge_count(existing(model_config))
    sizes = {name: _share(kept[name].sum(), kept[name].size) for name in GRANULARITIES}
    costs = model_config.family.costs(model_config)
    active, total = (
        parameters_kept(costs, model_config.kv_heads, part) for part in (kept, everything)
    )
    return {
        "sizes": sizes,
        "parameters": {
            "total": total,
            "active": active,
            "compression_ratio": total / active,
            "prunable_kept": prunable_share(model_config, kept),
        },
        "edges": _share(edges, all_edges),
    }


def _share(active: int, total: int) -> dict[str, Any]:
    return {
        "active": int(active),
        "total": int(total),
        "sparsity": 100 * (1 - int(active) / int(total)),
    }


def prunable_share(model_config: ModelConfig, masks: Mapping[str, Any]) -> float:
    """Parameters within kept nodes over those of all nodes; embeddings do not count.

    Args:
      model_config: the model's shape.
      masks: binary gates by granularity, consistent with the hierarchy.
    """
    return share_kept(model_config.family.costs(model_config), model_config.kv_heads, masks)
