"""A circuit's edges one by one, for a drawing.

Nodes are numbered as writers are, see `masks.edges`; the number after the last is the logits'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgnp_jax.masks.edges import K_EDGES, Q_EDGES, READERS, V_EDGES, Graph, first_writer


class Edge(NamedTuple):
    """One edge.

    Attributes:
      kind: by what reads, of `READERS`.
      writer: the node that it comes from.
      reader: the node that reads; of heads that share keys and values, the first.
    """

    kind: str
    writer: int
    reader: int


def edge_list(graph: Graph, masks: Mapping[str, Any]) -> list[Edge]:
    """The kept edges, in one order.

    Args:
      graph: of the model.
      masks: bool arrays by kind of reader.
    """
    group = graph.heads // graph.kv_heads
    found = []
    for kind, axes in READERS.items():
        for *reader, writer in np.argwhere(np.asarray(masks[kind], bool)).tolist():
            layer, place = graph.layers, 0
            if len(axes) == 1:
                layer, place = reader[0], graph.heads
            elif axes:
                layer, place = reader[0], reader[1] * (1 if kind == Q_EDGES else group)
            found.append(Edge(kind, writer, first_writer(graph, layer) + place))
    return found


def row_of(graph: Graph, node: int) -> int:
    """0 for the input, then two for each layer, heads and MLP; the last is the logits'.

    Args:
      graph: of the model.
      node: its number.
    """
    if node == 0:
        return 0
    layer, place = divmod(node - 1, graph.heads + 1)
    return 1 + 2 * layer + (place == graph.heads)


def readers_of(graph: Graph, edges: Sequence[Edge]) -> dict[Edge, list[int]]:
    """The nodes that an edge leads to: of keys and values that heads share, all that are used.

    Args:
      graph: of the model.
      edges: all of the circuit.
    """
    group = graph.heads // graph.kv_heads
    used = {e.writer for e in edges} | {e.reader for e in edges if e.kind == Q_EDGES}
    found = {}
    for e in edges:
        shared = range(e.reader, e.reader + group) if e.kind in (K_EDGES, V_EDGES) else ()
        found[e] = [node for node in shared if node in used] or [e.reader]
    return found
