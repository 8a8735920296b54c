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


def expected_parameters(costs: NodeCosts, kv_heads: int, chance: Mapping[str, Any]) -> Any:
    """Parameters within open nodes and outside of all nodes, in expectation.

    Gates are taken to be independent. What is empty counts: a head without neurons its queries.

    Args:
      costs: of the model's family and shape.
      kv_heads: KV.
      chance: [..., L, …] float by granularity, of each gate's own being open, in [0, 1]; binary
        masks are chances, too.

    Returns:
      [...].
    """
    heads, hidden = chance[ATTENTION_HEADS], chance[MLP_HIDDEN].sum(-1)
    neurons, output = heads[..., None] * chance[ATTENTION_NEURONS], chance[MLP_OUTPUT].sum(-1)
    attention = (
        costs.query * heads.sum(-1)
        + costs.key * _any_of_group(kv_heads, heads[..., None]).sum((-1, -2))
        + costs.value * _any_of_group(kv_heads, neurons).sum((-1, -2))
        + costs.z_row * neurons.sum((-1, -2))
        + costs.attn_block
    )
    mlp = (
        (costs.hidden_in + costs.hidden_row * output) * hidden
        + costs.output * output
        + costs.mlp_block
    )
    blocks = chance[ATTENTION_BLOCKS] * attention + chance[MLP_BLOCKS] * mlp
    return costs.outside + blocks.sum(-1)


def parameters_kept(costs: NodeCosts, kv_heads: int, kept: Mapping[str, Any]) -> int:
    """Parameters within kept nodes, and those outside of all nodes.

    Args:
      costs: of the model's family and shape.
      kv_heads: KV.
      kept: bool arrays by granularity, consistent with the hierarchy.
    """
    # Whole numbers up to 2^53 are exact.
    chance = {name: np.asarray(kept[name], np.float64) for name in TABLE}
    return int(expected_parameters(costs, kv_heads, chance))


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


def _any_of_group(kv_heads: int, neurons: Any) -> Any:
    """[..., H, E] → [..., KV, E]: chance that any query head of the group has it open."""
    *before, heads, width = neurons.shape
    grouped = neurons.reshape(*before, kv_heads, heads // kv_heads, width)
    return 1 - (1 - grouped).prod(-2)
