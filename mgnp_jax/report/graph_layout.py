"""Where nodes and edges of a circuit are drawn, in inches: a row for heads, one for the MLP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mgnp_jax.masks.edges import K_EDGES, Q_EDGES, V_EDGES, Graph
from mgnp_jax.report.graph_edges import Edge, row_of
from mgnp_jax.report.graph_routes import LANE, MARGIN, routed

BOX = (0.64, 0.26)
"""Width and height of a node."""

FRAME = 0.06
"""Between heads and the frame around those that share keys and values."""

PORTS = {Q_EDGES: -0.18, K_EDGES: 0.0, V_EDGES: 0.18}
"""Where edges enter a head, from its middle."""

NARROWEST, WIDEST = 0.95, 2.0
"""Between the middles of two nodes of a row; within a frame always the first."""

SWEEPS = 16
"""Times that the rows are put in order, upwards and downwards in turn."""


class Layout(NamedTuple):
    """A drawing.

    Attributes:
      places: node → its middle.
      frames: left, right and middle height of each frame around heads that share keys and values.
      routes: of each edge, the points of a curve, see `routed`.
    """

    places: dict[int, tuple[float, float]]
    frames: list[tuple[float, float, float]]
    routes: list[np.ndarray]


def laid_out(graph: Graph, edges: Mapping[Edge, Sequence[int]]) -> Layout:
    """Puts every node that edges go through, and every edge, in its place.

    Args:
      graph: of the model.
      edges: those that are drawn, at least one, and the nodes that each leads to.
    """
    nodes = sorted({e.writer for e in edges} | {n for readers in edges.values() for n in readers})
    rows: dict[int, list[list[int]]] = defaultdict(list)
    group = graph.heads // graph.kv_heads
    shared: dict[tuple[int, int], list[int]] = defaultdict(list)
    for node in nodes:
        row = row_of(graph, node)
        place = (node - 1) % (graph.heads + 1) // group if row else 0
        shared[row, place].append(node)
    for (row, _), members in sorted(shared.items()):
        rows[row].append(members)
    across = _ordered(rows, edges)
    heights = _heights(graph, list(rows), edges)
    places = {
        node: (across[node], heights[row])
        for row, some in rows.items()
        for members in some
        for node in members
    }
    return _drawn(rows, heights, places, edges)


def _drawn(
    rows: Mapping[int, list[list[int]]],
    heights: Mapping[int, float],
    places: dict[int, tuple[float, float]],
    edges: Mapping[Edge, Sequence[int]],
) -> Layout:
    """Frames and curves, given the places."""
    half, frames, boxes = BOX[0] / 2, [], defaultdict(list)
    for row, some in rows.items():
        for members in some:
            pad = FRAME if len(members) > 1 else 0.0
            across = [places[node][0] for node in members]
            boxes[row].append((min(across) - half - pad, max(across) + half + pad))
            if len(members) > 1:
                frames.append((*boxes[row][-1], heights[row]))
    wanted = []
    for edge, readers in edges.items():
        (x, y), stops = places[edge.writer], [places[node] for node in readers]
        below = BOX[1] / 2 + (FRAME if len(readers) > 1 else 0.0)
        middle = (min(stops)[0] + max(stops)[0]) / 2 + PORTS.get(edge.kind, 0.0)
        wanted.append(((x, y + BOX[1] / 2), (middle, stops[0][1] - below)))
    obstacles = [(heights[row], boxes[row]) for row in rows]
    return Layout(places, frames, routed(wanted, obstacles, BOX[1] / 2 + FRAME))


def _heights(
    graph: Graph, rows: Sequence[int], edges: Mapping[Edge, Sequence[int]]
) -> dict[int, float]:
    """Of each row; further apart where more passes, and a layer's heads nearer to its MLP."""
    found = {rows[0]: 0.0}
    spans = [(row_of(graph, e.writer), row_of(graph, e.reader)) for e in edges]
    for lower, upper in zip(rows, rows[1:]):
        passing = sum(low <= lower and upper <= high for low, high in spans)
        gap = min(0.45 + 0.005 * passing, 0.9)
        together = upper == lower + 1 and lower % 2 == 1
        found[upper] = found[lower] + BOX[1] + gap * (0.8 if together else 1.0)
    return found


def _ordered(
    rows: Mapping[int, list[list[int]]], edges: Mapping[Edge, Sequence[int]]
) -> dict[int, float]:
    """Place of each node in its row, by the means of their neighbours' (Sugiyama's barycentres)."""
    row = {node: r for r, some in rows.items() for members in some for node in members}
    pairs = [(e.writer, reader) for e, readers in edges.items() for reader in readers]
    below, above = defaultdict(list), defaultdict(list)
    for writer, reader in pairs:
        below[reader].append(writer)
        above[writer].append(reader)
    steps = _steps(rows, row, edges)
    across: dict[int, float] = {}
    for r, some in rows.items():
        across |= _spread(some, steps[r])
    order, best = dict(rows), (_crossings(pairs, across, row), across)
    for sweep in range(SWEEPS):
        upwards = sweep % 2 == 0
        near = below if upwards else above
        for r in sorted(rows, reverse=not upwards):
            pull = {
                node: float(np.mean([across[other] for other in near[node] or [node]]))
                for members in order[r]
                for node in members
            }
            inner = [sorted(members, key=lambda n: (pull[n], n)) for members in order[r]]
            order[r] = sorted(inner, key=lambda m: (sum(pull[n] for n in m) / len(m), m[0]))
            across = across | _spread(order[r], steps[r])
        best = min(best, (_crossings(pairs, across, row), across), key=lambda found: found[0])
    return best[1]


def _steps(
    rows: Mapping[int, list[list[int]]], row: Mapping[int, int], edges: Mapping[Edge, Sequence[int]]
) -> dict[int, float]:
    """Between the nodes of each row: as the widest row has it, or what passes between has room."""
    counts = {r: sum(map(len, some)) for r, some in rows.items()}
    found = {}
    for r, some in rows.items():
        passing = sum(row[e.writer] < r < row[readers[0]] for e, readers in edges.items())
        room = BOX[0] + 2 * (FRAME + MARGIN) + LANE * passing / (len(some) + 1)
        even = max(counts.values()) * NARROWEST / counts[r]
        found[r] = min(max(room, even, NARROWEST), WIDEST)
    return found


def _spread(row: Sequence[Sequence[int]], step: float) -> dict[int, float]:
    """Even places around the middle."""
    found, at = {}, 0.0
    for members in row:
        for node in members:
            found[node] = at
            at += NARROWEST
        at += step - NARROWEST
    middle = (at - step) / 2
    return {node: x - middle for node, x in found.items()}


def _crossings(
    pairs: Sequence[tuple[int, int]], across: Mapping[int, float], row: Mapping[int, int]
) -> int:
    """How many edges would cross if they were straight."""
    x = np.array([[across[node] for node in pair] for pair in pairs])
    y = np.array([[row[node] for node in pair] for pair in pairs], float)
    lower = np.maximum(y[:, None, 0], y[None, :, 0])
    upper = np.minimum(y[:, None, 1], y[None, :, 1])
    slope = (x[:, 1] - x[:, 0]) / (y[:, 1] - y[:, 0])
    side = []
    for height in (lower, upper):
        own = x[:, None, 0] + slope[:, None] * (height - y[:, None, 0])
        side.append(own - own.T)
    return int(((lower < upper) & (side[0] * side[1] < -1e-9)).sum()) // 2
