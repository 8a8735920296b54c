"""How large a circuit is: nodes per granularity, parameters, edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    EMBEDDING,
    GRANULARITIES,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
    as_bool,
    check_masks,
    full_masks,
)
from mgnp_jax.masks.hierarchy import apply_hierarchy, check_acting
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def circuit_sizes(model_config: ModelConfig, masks: Masks) -> dict[str, Any]:
    """Sizes of a circuit, as results.json has them.

    Args:
      model_config: the model's shape.
      masks: binary gates by granularity; the hierarchy is applied first.

    Returns:
      `sizes`: granularity → active, total, sparsity in percent. `parameters`: total,
      active, compression_ratio (total / active), prunable_kept. `edges`: total, active, sparsity in
      percent.

    Raises:
      MgnpError: if the masks are of another shape or not binary, or the hierarchy leaves nothing
        of what is open.

    Warns:
      UserWarning: if gates are open that change nothing, see `check_acting`.
    """
    check_masks(model_config, masks)
    masks = as_bool(masks)
    check_acting(masks, "the masks", stacklevel=2)
    kept = {k: np.asarray(v) for k, v in apply_hierarchy(masks).items()}
    everything = {k: np.asarray(v, bool) for k, v in full_masks(model_config).items()}
    sizes = {name: _share(kept[name].sum(), kept[name].size) for name in GRANULARITIES}
    active, total = count_parameters(model_config, kept), count_parameters(model_config, everything)
    return {
        "sizes": sizes,
        "parameters": {
            "total": total,
            "active": active,
            "compression_ratio": total / active,
            "prunable_kept": prunable_share(model_config, kept),
        },
        "edges": _share(count_edges(model_config, kept), count_edges(model_config, everything)),
    }


def _share(active: int, total: int) -> dict[str, Any]:
    return {
        "active": int(active),
        "total": int(total),
        "sparsity": 100 * (1 - int(active) / int(total)),
    }


def _groups(model_config: ModelConfig, per_head: np.ndarray) -> np.ndarray:
    """[L, H, ...] bool → [L, KV, ...]: kept if any query head of the group keeps it."""
    rest = per_head.shape[2:]
    grouped = per_head.reshape(model_config.layers, model_config.kv_heads, -1, *rest)
    return np.asarray(grouped.any(axis=2))


def prunable_share(model_config: ModelConfig, masks: Mapping[str, Any]) -> float:
    """Parameters within kept nodes over those of all nodes; embeddings do not count.

    Args:
      model_config: the model's shape.
      masks: binary gates by granularity, consistent with the hierarchy.
    """
    kept = {name: np.asarray(mask, bool) for name, mask in masks.items()}
    everything = {name: np.ones_like(mask) for name, mask in kept.items()}
    outside = model_config.family.costs(model_config).outside
    active, total = (count_parameters(model_config, part) for part in (kept, everything))
    return (active - outside) / (total - outside)


def count_parameters(model_config: ModelConfig, kept: dict[str, np.ndarray]) -> int:
    """Parameters within kept nodes, embeddings and final norm always counted.

    Args:
      model_config: the model's shape.
      kept: consistent bool masks by granularity.

    Returns:
      The count; with every node kept, the number of parameters of the model.
    """
    cost = model_config.family.costs(model_config)
    heads, neurons = kept[ATTENTION_HEADS], kept[ATTENTION_NEURONS]
    hidden, output = kept[MLP_HIDDEN].sum(-1), kept[MLP_OUTPUT].sum(-1)
    return int(
        cost.outside
        + cost.query * heads.sum()
        + cost.key * _groups(model_config, heads).sum()
        + cost.value * _groups(model_config, neurons).sum()
        + cost.z_row * neurons.sum()
        + cost.attn_block * kept[ATTENTION_BLOCKS].sum()
        + cost.hidden_in * hidden.sum()
        + cost.hidden_row * (hidden * output).sum()
        + cost.output * output.sum()
        + cost.mlp_block * kept[MLP_BLOCKS].sum()
    )


def count_edges(model_config: ModelConfig, kept: dict[str, np.ndarray]) -> int:
    """Edges between kept nodes, each head reading separately by q, k and v.

    One input node, one output node; heads of a layer feed its MLP, unless both read the same
    residual stream. With grouped queries k and v are read once per key-value head.

    Args:
      model_config: the model's shape.
      kept: consistent bool masks by granularity.

    Returns:
      The count; 32,491 for the whole of GPT-2 small, 70,651 for SmolLM2-135M.
    """
    heads = kept[ATTENTION_HEADS].sum(-1)
    groups = _groups(model_config, kept[ATTENTION_HEADS]).sum(-1)
    mlps = kept[MLP_BLOCKS]
    # The input node writes first, unless its own gate is closed.
    writers = int(kept.get(EMBEDDING, np.array(True)))
    edges = 0
    for layer in range(model_config.layers):
        edges += int(heads[layer] + 2 * groups[layer]) * writers
        read_by_mlp = writers if model_config.parallel else writers + int(heads[layer])
        edges += int(mlps[layer]) * read_by_mlp
        writers += int(heads[layer]) + int(mlps[layer])
    return edges + writers
