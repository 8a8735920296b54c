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
    on = {name: np.asarray(kept[name], np.int64) for name in TABLE}
    heads, neurons = on[ATTENTION_HEADS], on[ATTENTION_NEURONS]
    hidden, output = on[MLP_HIDDEN].sum(-1), on[MLP_OUTPUT].sum(-1)
    attention = (
        costs.query * heads.sum(-1)
        + costs.key * _any_of_group(kv_heads, heads[..., None]).sum((-1, -2))
        + costs.value * _any_of_group(kv_heads, neurons).sum((-1, -2))
        + costs.z_row * neurons.sum((-1, -2))
        + costs.attn_block * on[ATTENTION_BLOCKS]
    )
    mlp = (
        (costs.hidden_in + costs.hidden_row * output) * hidden
        + costs.output * output
        + costs.mlp_block * on[MLP_BLOCKS]
    )
    return int(costs.outside + (attention + mlp).sum())


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


def _any_of_group(kv_heads: int, neurons: np.ndarray) -> np.ndarray:
    """[L, H, E] → [L, KV, E]: 1 where any query head of the group has it."""
    layers, heads, width = neurons.shape
    return neurons.reshape(layers, kv_heads, heads // kv_heads, width).max(-2)
