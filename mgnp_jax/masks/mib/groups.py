"""Grouped queries: edges by key or value of a group, as edges of each of its query heads.

What a group reads by key counts for its heads that are in the circuit, so these have the group's
edges in a file, and the others have none; a group of which no head is (its edges lead nowhere)
gives them to all. The other way round a group reads what any of those heads does. So a circuit of
ours comes back exactly. One in which heads of a group differ cannot be one of ours: it becomes the
smallest of ours that contains it, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.edge_graph import nodes_within, without_dangling
from mgnp_jax.masks.edges import K_EDGES, V_EDGES
from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks

SHARED = (K_EDGES, V_EDGES)
"""Kinds of edges that a group has in common."""


def _reading(model_config: ModelConfig, masks: Mapping[str, Any]) -> np.ndarray:
    """[L, KV, heads of a group, 1] which heads' edges count: those in the circuit, if any is."""
    nodes = nodes_within(model_config, without_dangling(masks))
    c = model_config
    heads = np.asarray(nodes[ATTENTION_HEADS]).reshape(c.layers, c.kv_heads, -1, 1)
    return heads | ~heads.any(2, keepdims=True)


def _by_group(model_config: ModelConfig, per_head: np.ndarray) -> np.ndarray:
    """[L, H, W] → [L, KV, heads of a group, W]."""
    c = model_config
    return per_head.reshape(c.layers, c.kv_heads, c.heads // c.kv_heads, -1)


def for_each_head(model_config: ModelConfig, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Anything by kind of reader, each query head with what its group has.

    Args:
      model_config: the model's shape.
      arrays: by kind of reader.

    Returns:
      By kind of reader, of an ungrouped model.
    """
    group = model_config.heads // model_config.kv_heads
    found = {name: np.asarray(leaf) for name, leaf in arrays.items()}
    return found | {name: np.repeat(found[name], group, axis=1) for name in SHARED}


def edges_of_heads(model_config: ModelConfig, masks: Masks) -> dict[str, np.ndarray]:
    """A circuit's edges, those of a group as edges of its heads.

    Args:
      model_config: the model's shape.
      masks: bool arrays by kind of reader.

    Returns:
      The same of an ungrouped model.
    """
    reading = _reading(model_config, masks)
    found = for_each_head(model_config, masks)
    for name in SHARED:
        kept = _by_group(model_config, found[name]) & reading
        found[name] = kept.reshape(found[name].shape)
    return found


def edges_of_groups(
    model_config: ModelConfig, per_head: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], int]:
    """The edges of heads as those of their groups.

    Args:
      model_config: the model's shape.
      per_head: bool arrays by kind of reader, of an ungrouped model.

    Returns:
      The same of the model, and how many edges of groups only some of the heads that count have.
    """
    reading = _reading(model_config, per_head)
    found, differ = dict(per_head), 0
    for name in SHARED:
        kept = _by_group(model_config, per_head[name])
        found[name] = np.asarray((kept & reading).any(2))
        differ += int((found[name] & ~(kept | ~reading).all(2)).sum())
    return found, differ


def scores_of_groups(
    model_config: ModelConfig, per_head: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], int]:
    """The scores of heads' edges as those of their groups: the largest, as any head's is enough.

    Args:
      model_config: the model's shape.
      per_head: float arrays by kind of reader, of an ungrouped model.

    Returns:
      The same of the model, and how many edges of groups have heads whose scores differ.
    """
    found, differ = dict(per_head), 0
    for name in SHARED:
        scores = _by_group(model_config, per_head[name])
        found[name] = scores.max(2)
        differ += int((scores.min(2) != found[name]).sum())
    return found, differ
