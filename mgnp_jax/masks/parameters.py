"""How many parameters kept nodes account for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
    TABLE,
)
from mgnp_jax.models.block import NodeCosts


def parameters_kept(costs: NodeCosts, kv_heads: int, kept: Mapping[str, Any]) -> int:
    """Parameters within kept nodes, and those outside of all nodes.

    Args:
      costs: of the model's family and shape.
      kv_heads: KV.
      kept: bool arrays by granularity, consistent with the hierarchy.
    """
    masks = {name: np.asarray(kept[name], bool) for name in TABLE}
    heads, neurons = masks[ATTENTION_HEADS], masks[ATTENTION_NEURONS]
    hidden, output = masks[MLP_HIDDEN].sum(-1), masks[MLP_OUTPUT].sum(-1)
    return int(
        costs.outside
        + costs.query * heads.sum()
        + costs.key * _groups(kv_heads, heads).sum()
        + costs.value * _groups(kv_heads, neurons).sum()
        + costs.z_row * neurons.sum()
        + costs.attn_block * masks[ATTENTION_BLOCKS].sum()
        + costs.hidden_in * hidden.sum()
        + costs.hidden_row * (hidden * output).sum()
        + costs.output * output.sum()
        + costs.mlp_block * masks[MLP_BLOCKS].sum()
    )


def share_kept(costs: NodeCosts, kv_heads: int, masks: Mapping[str, Any]) -> float:
    """Parameters within kept nodes over those of all nodes.

    Args:
      costs: of the model's family and shape.
      kv_heads: KV.
      masks: bool arrays by granularity, consistent with the hierarchy.
    """
    everything = {name: np.ones(np.shape(masks[name]), bool) for name in TABLE}
    active, total = (parameters_kept(costs, kv_heads, part) for part in (masks, everything))
    return (active - costs.outside) / (total - costs.outside)


def _groups(kv_heads: int, per_head: np.ndarray) -> np.ndarray:
    """[L, H, ...] bool → [L, KV, ...]: kept if any query head of the group keeps it."""
    grouped = per_head.reshape(len(per_head), kv_heads, -1, *per_head.shape[2:])
    return np.asarray(grouped.any(axis=2))
