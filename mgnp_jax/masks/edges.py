"""The edge graph: which node reads what which earlier node writes; ONE table of the readers.

Writers are the input, every head and every MLP, in the order in which they write: `input`, `a0.h0`,
…, `m0`, `a1.h0`, …. Readers are every head by its query, key and value, every MLP, and the logits.
With grouped queries a key-value head reads once for all its query heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks

Q_EDGES, K_EDGES, V_EDGES = "q_edges", "k_edges", "v_edges"
MLP_EDGES, LOGITS_EDGES = "mlp_edges", "logits_edges"

READERS: dict[str, tuple[str, ...]] = {
    Q_EDGES: ("layers", "heads"),
    K_EDGES: ("layers", "kv_heads"),
    V_EDGES: ("layers", "kv_heads"),
    MLP_EDGES: ("layers",),
    LOGITS_EDGES: (),
}
"""Kinds of edges by what reads, and the fields of `ModelConfig` that count the readers. The last
axis of an array of edges is the writer's; edges that no model has are always closed in it."""

HEAD_EDGES = (Q_EDGES, K_EDGES, V_EDGES)
"""Those into heads."""


class Graph(NamedTuple):
    """What of a model decides which edges there are, for where no model is at hand.

    Attributes:
      layers: L.
      heads: H.
      kv_heads: KV.
      parallel: whether attention and MLP read the same residual stream.
    """

    layers: int
    heads: int
    kv_heads: int
    parallel: bool

    @classmethod
    def of(cls, model_config: ModelConfig) -> Graph:
        """A model's.

        Args:
          model_config: the model's shape.
        """
        return cls(*(getattr(model_config, name) for name in cls._fields))

    @classmethod
    def said(cls, metadata: Any) -> Graph | None:
        """What a circuit's metadata says, which may be anything; None if that is no graph.

        Args:
          metadata: its entry `graph`.
        """
        if not isinstance(metadata, dict) or set(metadata) != set(cls._fields):
            return None
        found = cls(**metadata)
        counts = (found.layers, found.heads, found.kv_heads)
        whole = all(isinstance(count, int) and count > 0 for count in counts)
        return found if whole and found.heads % found.kv_heads == 0 else None


def writer_count(model_config: ModelConfig | Graph) -> int:
    """W, how many nodes write: the input, heads and MLPs."""
    return 1 + model_config.layers * (model_config.heads + 1)


def first_writer(model_config: ModelConfig | Graph, layer: Any) -> Any:
    """Index of a layer's first head among the writers; those before it are all it can read.

    Args:
      model_config: the model's shape.
      layer: index, or an array of them; the number of layers stands for the logits.
    """
    return 1 + layer * (model_config.heads + 1)


def edge_shapes(model_config: ModelConfig | Graph) -> dict[str, tuple[int, ...]]:
    """Shape of the arrays of edges.

    Args:
      model_config: the model's shape.

    Returns:
      Name → shape, readers first, writers last.
    """
    writers = writer_count(model_config)
    return {
        name: (*(getattr(model_config, axis) for axis in axes), writers)
        for name, axes in READERS.items()
    }


def existing(model_config: ModelConfig | Graph) -> dict[str, np.ndarray]:
    """Which edges the model has: those from earlier writers.

    Heads read what earlier layers wrote; an MLP that, and the heads of its layer, unless both read
    the same residual stream.

    Args:
      model_config: the model's shape.

    Returns:
      Bool arrays, True where there is an edge.
    """
    layers = np.arange(model_config.layers)
    before = np.arange(writer_count(model_config)) < first_writer(model_config, layers)[:, None]
    beside = 0 if model_config.parallel else model_config.heads
    read_by_mlp = np.arange(writer_count(model_config)) < (
        first_writer(model_config, layers)[:, None] + beside
    )
    found = {MLP_EDGES: read_by_mlp, LOGITS_EDGES: np.ones(writer_count(model_config), bool)}
    shapes = edge_shapes(model_config)
    for name in HEAD_EDGES:
        found[name] = np.broadcast_to(before[:, None], shapes[name]).copy()
    return {name: found[name] for name in READERS}


def full_edges(model_config: ModelConfig, value: float = 1.0) -> Masks:
    """Edge gates (or log-alpha) that all have one value; 0 where the model has no edge.

    Args:
      model_config: the model's shape.
      value: of every edge.

    Returns:
      Float32 arrays by kind of reader.
    """
    there = existing(model_config)
    return jax.device_put({n: np.where(e, value, 0).astype(np.float32) for n, e in there.items()})


def edge_count(masks: Mapping[str, Any]) -> int:
    """How many edges are kept.

    Args:
      masks: bool arrays by kind of reader.
    """
    return sum(int(np.asarray(mask, bool).sum()) for mask in masks.values())


def writer_names(model_config: ModelConfig | Graph) -> list[str]:
    """The writers as the field names them: `input`, `a0.h0`, …, `m0`, ….

    Args:
      model_config: the model's shape.
    """
    found = ["input"]
    for layer in range(model_config.layers):
        found += [f"a{layer}.h{head}" for head in range(model_config.heads)]
        found.append(f"m{layer}")
    return found


def reader_names(
    model_config: ModelConfig | Graph, kept: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The readers as the field names them: `a0.h3<q>`, `m7`, `logits`.

    Args:
      model_config: the model's shape.
      kept: [L, H] bool, which heads a circuit goes through; None for all.

    Returns:
      By kind, arrays of text in the shape of the readers; a key or value head that several query
      heads share is named after the first of them that is kept, or the first if none is.
    """
    c = model_config
    group = c.heads // c.kv_heads
    first = np.zeros((c.layers, c.kv_heads), int)
    if kept is not None:
        first = np.asarray(kept, bool).reshape(c.layers, c.kv_heads, group).argmax(-1)
    shared = first + np.arange(c.kv_heads) * group
    own = np.broadcast_to(np.arange(c.heads), (c.layers, c.heads))

    def heads(letter: str, which: np.ndarray) -> np.ndarray:
        return np.array([[f"a{n}.h{h}<{letter}>" for h in row] for n, row in enumerate(which)])

    return {
        Q_EDGES: heads("q", own),
        K_EDGES: heads("k", shared),
        V_EDGES: heads("v", shared),
        MLP_EDGES: np.array([f"m{layer}" for layer in range(c.layers)]),
        LOGITS_EDGES: np.array("logits"),
    }
