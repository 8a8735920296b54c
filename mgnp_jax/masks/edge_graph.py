"""What edges and nodes have to do with each other: what dangles, and one level as the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.edges import (
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    READERS,
    V_EDGES,
    Graph,
    edge_count,
    existing,
    reader_names,
    writer_names,
)
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    EMBEDDING,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
    mask_shapes,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks

TOLD_BY_EDGES = (ATTENTION_BLOCKS, MLP_BLOCKS, ATTENTION_HEADS)
"""Granularities whose nodes edges tell apart: neurons go with their head or MLP."""


def _of_group(per_group: np.ndarray, heads: int) -> np.ndarray:
    """[L, KV] → [L, H]: of each query head's group."""
    return np.repeat(per_group, heads // per_group.shape[1], axis=1)


def _any_of_group(per_head: np.ndarray, groups: int) -> np.ndarray:
    """[L, H] → [L, KV]: whether any of the group's query heads is."""
    return np.asarray(per_head.reshape(len(per_head), groups, -1).any(-1))


def without_dangling(masks: Mapping[str, Any]) -> Masks:
    """Leaves out edges of nodes that read nothing or that nothing reads, until there are none.

    A node that reads nothing kept has its corrupted value, so what it writes changes nothing.

    Args:
      masks: bool arrays by kind of reader.

    Returns:
      Bool arrays by kind of reader; the same function of the prompts.
    """
    kept = {name: np.array(mask, bool) for name, mask in masks.items()}
    layers, heads = kept[Q_EDGES].shape[:2]
    groups = kept[K_EDGES].shape[1]
    while True:
        count = edge_count(kept)
        alive = np.concatenate([[True], _nodes(kept).ravel()])
        for name in READERS:
            kept[name] &= alive
        own = alive[1:].reshape(layers, heads + 1)
        per_group = _any_of_group(own[:, :-1], groups)
        kept[Q_EDGES] &= own[:, :-1, None]
        kept[K_EDGES] &= per_group[..., None]
        kept[V_EDGES] &= per_group[..., None]
        kept[MLP_EDGES] &= own[:, -1:]
        if edge_count(kept) == count:
            return jax.device_put(kept)


def _nodes(kept: dict[str, np.ndarray]) -> np.ndarray:
    """[L, H + 1] which heads and MLPs (last) read something that is kept and are read by something.

    Of a head, reading by query, key or value counts, though by key or value only together with its
    group.
    """
    layers, heads = kept[Q_EDGES].shape[:2]
    read = np.zeros(kept[LOGITS_EDGES].shape, bool)
    for mask in kept.values():
        read |= mask.reshape(-1, mask.shape[-1]).any(0)
    into = {name: np.asarray(mask.any(-1)) for name, mask in kept.items()}
    keys_and_values = _of_group(into[K_EDGES] | into[V_EDGES], heads)
    reads = np.concatenate([into[Q_EDGES] | keys_and_values, into[MLP_EDGES][:, None]], axis=1)
    return reads & read[1:].reshape(layers, heads + 1)


def edges_between(model_config: ModelConfig | Graph, nodes: Masks) -> Masks:
    """A node circuit's edges: those between kept nodes.

    The same function of the prompts where nodes are kept whole; an edge is of all neurons.

    Args:
      model_config: the model's shape.
      nodes: bool arrays by granularity, consistent with the hierarchy.

    Returns:
      Bool arrays by kind of reader.
    """
    heads = np.asarray(nodes[ATTENTION_HEADS], bool)
    mlps = np.asarray(nodes[MLP_BLOCKS], bool)
    writes = np.concatenate([heads, mlps[:, None]], axis=1).ravel()
    writes = np.concatenate([[bool(np.asarray(nodes.get(EMBEDDING, True)))], writes])
    per_group = _any_of_group(heads, model_config.kv_heads)
    reads = {
        Q_EDGES: heads,
        K_EDGES: per_group,
        V_EDGES: per_group,
        MLP_EDGES: mlps,
        LOGITS_EDGES: np.array(True),
    }
    there = existing(model_config)
    return jax.device_put({n: there[n] & reads[n][..., None] & writes for n in READERS})


def edge_names(model_config: ModelConfig | Graph, masks: Mapping[str, Any]) -> Iterator[str]:
    """The kept edges as the field names them: `a0.h0->a1.h3<q>`.

    Args:
      model_config: the model's shape.
      masks: bool arrays by kind of reader.

    Yields:
      A name for each; of key and value heads that several query heads share, see `reader_names`.
    """
    kept = {name: np.asarray(masks[name], bool) for name in READERS}
    writers = writer_names(model_config)
    readers = reader_names(model_config, _nodes(kept)[:, :-1])
    for name, mask in kept.items():
        for *reader, writer in np.argwhere(mask):
            yield f"{writers[writer]}->{readers[name][tuple(reader)]}"


def heads_used(masks: Masks) -> int:
    """How many heads an edge circuit goes through.

    Args:
      masks: bool arrays by kind of reader.
    """
    return int(_nodes({n: np.asarray(mask, bool) for n, mask in masks.items()})[:, :-1].sum())


def nodes_within(model_config: ModelConfig, masks: Masks) -> Masks:
    """The heads and MLPs, whole, that an edge circuit goes through.

    Args:
      model_config: the model's shape.
      masks: bool arrays by kind of reader.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy.
    """
    own = _nodes({name: np.asarray(mask, bool) for name, mask in masks.items()})
    heads, mlps = own[:, :-1], own[:, -1]
    kept = {
        ATTENTION_BLOCKS: heads.any(-1),
        MLP_BLOCKS: mlps,
        ATTENTION_HEADS: heads,
        ATTENTION_NEURONS: heads[..., None],
        MLP_HIDDEN: mlps[:, None],
        MLP_OUTPUT: mlps[:, None],
    }
    shapes = mask_shapes(model_config)
    return jax.device_put({n: np.broadcast_to(kept[n], shapes[n]).copy() for n in shapes})


def nodes_by_edges(model_config: ModelConfig | Graph, scores: Mapping[str, Any]) -> Masks:
    """A ranking of heads and MLPs by one of edges: a node has the score of the strongest from it.

    Args:
      model_config: the model's shape.
      scores: float by kind of reader.

    Returns:
      Float arrays of blocks and heads; a block of attention has the highest of its heads. Edges
      tell no neurons apart.
    """
    each = [np.asarray(leaf).reshape(-1, np.shape(leaf)[-1]).max(0) for leaf in scores.values()]
    best = np.max(each, axis=0)[1:].reshape(model_config.layers, model_config.heads + 1)
    heads, mlps = best[:, :-1], best[:, -1]
    return {ATTENTION_BLOCKS: heads.max(-1), ATTENTION_HEADS: heads, MLP_BLOCKS: mlps}
