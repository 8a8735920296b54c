"""A circuit of edges as a graph: which kept node reads what which other writes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mgnp_jax.masks.edges import (
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    READERS,
    V_EDGES,
    Graph,
    writer_names,
)
from mgnp_jax.report.figures import INK, PALE, new_figure
from mgnp_jax.report.graph_edges import Edge, edge_list, readers_of
from mgnp_jax.report.graph_layout import BOX, FRAME, Layout, laid_out
from mgnp_jax.report.text import pictured
from mgnp_jax.tasks.problems import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_EDGES = 300
"""More cannot be told from each other."""

LOOKS = {
    Q_EDGES: ("a head, as query", "#0072b2"),
    K_EDGES: ("a head, as key", "#e69f00"),
    V_EDGES: ("a head, as value", "#009e73"),
    MLP_EDGES: ("an MLP", "#b0569a"),
    LOGITS_EDGES: ("the logits", "#5a5a5a"),
}
"""What reads, and its colour, by kind of edge; colours that the colour-blind tell apart too."""

MARGIN = 0.9
"""Left and right of nodes and curves, in inches; layers have their names there."""

BAND, PAD = "#f5f5f2", 0.13
"""Behind a layer, and how far it reaches beyond the boxes."""

LEAST_WIDTH = 7.6
"""For title and legend, in inches."""


def graph_figure(
    graph: Graph,
    masks: Mapping[str, Any],
    title: str,
    scores: Mapping[str, Any] | None = None,
) -> Figure:
    """Nodes in rows from the input, below, to the logits, and a curve for every kept edge.

    Of a circuit of more than `MOST_EDGES`, only so many are drawn, the strongest or, without
    scores, those nearest to the logits; the title says so.

    Args:
      graph: of the model.
      masks: bool arrays by kind of reader, with an edge at least.
      title: above the picture.
      scores: float arrays by kind of reader; higher is kept longer, and drawn thicker.
    """
    edges = edge_list(graph, masks)
    ranks = _ranks(masks, scores)
    order = sorted(range(len(edges)), key=lambda i: (-ranks[i], -edges[i].reader, i))
    chosen = sorted(order[:MOST_EDGES])
    readers = readers_of(graph, edges)
    drawn = [edges[i] for i in chosen]
    layout = laid_out(graph, {edge: readers[edge] for edge in drawn})
    nodes = {edge.writer for edge in edges}.union(*readers.values())
    lines = [
        *textwrap.wrap(title, 76, max_lines=2, placeholder="…"),
        *_counted(len(drawn), len(edges), len(layout.places), len(nodes), scores is not None),
    ]
    if layout.frames:
        lines.append("In a frame: heads that share keys and values")
    figure, axes = _sheet(layout, lines)
    _draw_layers(axes, graph, layout)
    _draw_edges(axes, drawn, _strengths(ranks[chosen]), layout)
    _draw_legend(axes, drawn)
    _draw_nodes(axes, graph, layout)
    return figure


def _ranks(masks: Mapping[str, Any], scores: Mapping[str, Any] | None) -> np.ndarray:
    """[E] in the order of `edge_list`; the higher, the stronger, and equal for equal scores."""
    kept = [np.asarray(masks[kind], bool) for kind in READERS]
    if scores is None:
        return np.zeros(sum(int(mask.sum()) for mask in kept), int)
    found = [np.asarray(scores[kind])[mask] for kind, mask in zip(READERS, kept)]
    return np.unique(np.concatenate(found), return_inverse=True)[1]


def _strengths(ranks: np.ndarray) -> np.ndarray:
    """Ranks of what is drawn as numbers from 0 to 1."""
    low, high = ranks.min(), ranks.max()
    return (ranks - low) / (high - low) if low < high else np.full(ranks.shape, 0.5)


def _counted(drawn: int, edges: int, shown: int, nodes: int, ranked: bool) -> list[str]:
    """What the picture shows, and what it does not."""
    thick = "; the thicker, the higher its score" if ranked else ""
    if drawn == edges:
        return [f"{many(edges, 'edge')} between {many(nodes, 'node')}{thick}"]
    which = "of highest score" if ranked else "nearest to the logits"
    rest = many(edges - drawn, "other edge")
    alone = f" and {many(nodes - shown, 'node')} that only they touch" if nodes > shown else ""
    return [
        f"The {drawn:,} of {edges:,} edges {which}, between {many(shown, 'node')}{thick}",
        f"Not drawn: {rest}{alone}",
    ]


def _sheet(layout: Layout, lines: Sequence[str]) -> tuple[Figure, Axes]:
    """An empty picture in inches, with its title."""
    points = np.concatenate(layout.routes)
    boxes = np.array(list(layout.places.values()))
    half = max(np.abs(points[:, 0]).max(), np.abs(boxes[:, 0]).max() + BOX[0] / 2)
    half = max(half + MARGIN, LEAST_WIDTH / 2)
    top = boxes[:, 1].max() + BOX[1]
    bottom = boxes[:, 1].min() - BOX[1]
    above, below = 0.22 * len(lines) + 0.1, 0.5
    height = top - bottom + above + below
    figure = new_figure(2 * half, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, below / height, 1, (top - bottom) / height))
    axes.set(xlim=(-half, half), ylim=(bottom, top))
    axes.set_axis_off()
    for i, line in enumerate(lines):
        figure.text(
            0.5,
            1 - (0.22 + 0.22 * i) / height,
            pictured(line),
            ha="center",
            va="center",
            fontsize=11 if i == 0 else 9,
        )
    return figure, axes


def _draw_layers(axes: Axes, graph: Graph, layout: Layout) -> None:
    """A band for each layer that is used, with its number."""
    heights: dict[int, list[float]] = {}
    for node, (_, y) in layout.places.items():
        layer = (node - 1) // (graph.heads + 1)
        if 0 <= layer < graph.layers:
            heights.setdefault(layer, []).append(y)
    left, right = axes.get_xlim()
    for layer, ys in heights.items():
        low, high = min(ys) - BOX[1] / 2 - PAD, max(ys) + BOX[1] / 2 + PAD
        axes.axhspan(low, high, color=BAND, linewidth=0, zorder=0)
        middle = (low + high) / 2
        axes.text(left + 0.1, middle, f"layer {layer}", va="center", fontsize=8, color="0.45")


def _draw_edges(axes: Axes, edges: Sequence[Edge], strengths: np.ndarray, layout: Layout) -> None:
    """Curves by what reads them, the strongest above, and where they enter a node."""
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba
    from matplotlib.path import Path

    order = np.argsort(strengths, kind="stable")
    routes = [layout.routes[i] for i in order]
    colours = [LOOKS[edges[i].kind][1] for i in order]
    strong = strengths[order]
    paths = []
    for points in routes:
        codes = np.full(len(points), Path.CURVE4)
        codes[0] = Path.MOVETO
        paths.append(Path(points, codes))
    curves = PathCollection(
        paths,
        facecolors="none",
        edgecolors=[to_rgba(c, 0.4 + 0.5 * s) for c, s in zip(colours, strong)],
        linewidths=0.5 + 1.8 * strong,
        zorder=1,
    )
    curves.set_transform(axes.transData)
    axes.add_collection(curves, autolim=False)
    entered = {tuple(points[-1]): c for points, c in zip(routes, colours)}
    axes.scatter(*zip(*entered), c=list(entered.values()), s=9, zorder=4, linewidths=0)


def _draw_legend(axes: Axes, edges: Sequence[Edge]) -> None:
    """Colours, and how many edges have each."""
    from matplotlib.lines import Line2D

    counts = Counter(edge.kind for edge in edges)
    shown = [kind for kind in READERS if counts[kind]]
    axes.figure.legend(
        [Line2D([], [], color=LOOKS[kind][1], linewidth=2) for kind in shown],
        [f"{LOOKS[kind][0]} ({counts[kind]:,})" for kind in shown],
        title="read by",
        title_fontsize=8,
        loc="lower center",
        ncols=len(shown),
        fontsize=8,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.4,
    )


def _draw_nodes(axes: Axes, graph: Graph, layout: Layout) -> None:
    """Boxes with names, and frames around heads that share keys and values."""
    from matplotlib.patches import FancyBboxPatch

    names = [*writer_names(graph), "logits"]
    for left, right, y in layout.frames:
        height = BOX[1] + 2 * FRAME
        place, size = (left, y - height / 2), (right - left, height)
        style = "round,pad=0,rounding_size=0.1"
        axes.add_patch(
            FancyBboxPatch(place, *size, style, facecolor="white", edgecolor="0.6", zorder=0.5)
        )
    for node, (x, y) in layout.places.items():
        outer, mlp = node in (0, len(names) - 1), (node - 1) % (graph.heads + 1) == graph.heads
        axes.add_patch(
            FancyBboxPatch(
                (x - BOX[0] / 2, y - BOX[1] / 2),
                *BOX,
                "round,pad=0,rounding_size=0.08",
                facecolor=INK if outer else PALE if mlp else "white",
                edgecolor=INK,
                linewidth=0.9,
                zorder=3,
            )
        )
        colour = "white" if outer else "black"
        axes.text(x, y, names[node], ha="center", va="center", fontsize=8, color=colour, zorder=5)
