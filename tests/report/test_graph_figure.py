"""The graph of a circuit: every used node once, every kept edge once, nothing silently missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import nodes_within, without_dangling
from mgnp_jax.masks.edges import (
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    READERS,
    V_EDGES,
    Graph,
    edge_count,
    edge_names,
    existing,
    writer_names,
)
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS
from mgnp_jax.masks.levels import level_of
from mgnp_jax.report import run_folder
from mgnp_jax.report.graph_edges import edge_list, readers_of, row_of
from mgnp_jax.report.graph_figure import LOOKS, MOST_EDGES, graph_figure
from mgnp_jax.report.graph_layout import BOX, FRAME, Layout, laid_out
from mgnp_jax.report.text import save_picture
from tests import tiny
from tests.masks.test_edges import GPT2_SMALL, SMOLLM2, some_nodes

CONFIGS = {**tiny.CONFIGS, **tiny.ODD, "gpt2-small": GPT2_SMALL, "smollm2": SMOLLM2}


def some_edges(model_config: mg.ModelConfig, count: int, seed: int = 0) -> mg.Masks:
    """Random edges, without what dangles."""
    there = existing(model_config)
    rng = np.random.default_rng(seed)
    chance = count / edge_count(there)
    # Enough reaches the logits for that something is left.
    kept = {name: mask & (rng.random(mask.shape) < chance) for name, mask in there.items()}
    kept[LOGITS_EDGES] = rng.random(kept[LOGITS_EDGES].shape) < 0.5
    kept[MLP_EDGES][:, 0] = True
    return without_dangling(kept)


def used(model_config: mg.ModelConfig, masks: mg.Masks) -> set[int]:
    """Numbers of the heads and MLPs that edges go through."""
    nodes = nodes_within(model_config, masks)
    heads, mlps = np.asarray(nodes[ATTENTION_HEADS]), np.asarray(nodes[MLP_BLOCKS])
    found = np.flatnonzero(np.concatenate([heads, mlps[:, None]], axis=1))
    return {1 + int(i) for i in found}


def layout_of(graph: Graph, masks: Mapping[str, Any]) -> Layout:
    edges = edge_list(graph, masks)
    return laid_out(graph, readers_of(graph, edges))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for part in (figure, *figure.axes) for text in part.texts]


def curves(figure: Figure) -> PathCollection:
    (found,) = [c for c in figure.axes[0].collections if c.get_zorder() == 1]
    assert isinstance(found, PathCollection)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_edges_are_listed_as_they_are_named(name: str) -> None:
    masks = some_edges(CONFIGS[name], 200)
    names = [*writer_names(CONFIGS[name]), "logits"]
    edges = edge_list(Graph.of(CONFIGS[name]), masks)
    marks = {Q_EDGES: "<q>", K_EDGES: "<k>", V_EDGES: "<v>"}
    told = [f"{names[e.writer]}->{names[e.reader]}{marks.get(e.kind, '')}" for e in edges]
    assert told == list(edge_names(CONFIGS[name], masks)) and len(set(edges)) == len(told) > 5


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_ascend_and_nothing_lies_on_anything(name: str) -> None:
    graph, masks = Graph.of(CONFIGS[name]), some_edges(CONFIGS[name], 200)
    edges = edge_list(graph, masks)
    layout = layout_of(graph, masks)
    assert len(layout.routes) == edge_count(masks)
    last = len(writer_names(CONFIGS[name]))
    assert set(layout.places) - {0, last} == used(CONFIGS[name], masks)
    by_row: dict[int, set[float]] = {}
    for node, (_, y) in layout.places.items():
        by_row.setdefault(row_of(graph, node), set()).add(y)
    heights = [y for row in sorted(by_row) for y in by_row[row]]
    # One height a row, and each above the last by more than a box.
    assert len(heights) == len(by_row) and min(np.diff(heights)) > BOX[1] + 2 * FRAME
    places = np.array(list(layout.places.values()))
    apart = np.abs(places[:, None] - places[None]) > np.array(BOX) + 0.05
    assert (apart.any(-1) | np.eye(len(places), dtype=bool)).all()
    for edge, points in zip(edges, layout.routes):
        assert (np.diff(points[:, 1]) > 0).all(), "a curve goes down"
        x, y = layout.places[edge.writer]
        assert tuple(points[0]) == (x, y + BOX[1] / 2)
        assert row_of(graph, edge.writer) < row_of(graph, edge.reader)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_box_hides_a_curve(name: str) -> None:
    graph, masks = Graph.of(CONFIGS[name]), some_edges(CONFIGS[name], 150, seed=1)
    layout = layout_of(graph, masks)
    for points in layout.routes:
        parts = np.stack([points[i : i + 4] for i in range(0, len(points) - 1, 3)])
        t = np.linspace(0, 1, 15)[:, None, None]
        along = (1 - t) ** 3 * parts[:, 0] + 3 * t * (1 - t) ** 2 * parts[:, 1]
        along = (along + 3 * t**2 * (1 - t) * parts[:, 2] + t**3 * parts[:, 3]).reshape(-1, 2)
        first, last = points[0, 1], points[-1, 1]
        for place in layout.places.values():
            if first < place[1] < last:
                inside = np.abs(along - place) < np.array(BOX) / 2
                assert not inside.all(-1).any()


def test_heads_that_share_keys_are_framed_together() -> None:
    graph = Graph.of(tiny.LLAMA)
    layout = layout_of(graph, existing(tiny.LLAMA))
    assert len(layout.frames) == graph.layers * graph.kv_heads
    for left, right, y in layout.frames:
        inside = [n for n, (x, at) in layout.places.items() if at == y and left < x < right]
        assert len(inside) == 2 and inside[1] == inside[0] + 1 and (inside[0] - 1) % 5 % 2 == 0
    assert not layout_of(Graph.of(tiny.GPT2), existing(tiny.GPT2)).frames


def test_every_kept_edge_and_node_is_drawn_once() -> None:
    graph, masks = Graph.of(tiny.LLAMA), some_edges(tiny.LLAMA, 60)
    figure = graph_figure(graph, masks, "Edges kept: $a$")
    edges = edge_list(graph, masks)
    layout = laid_out(graph, readers_of(graph, edges))
    drawn = [np.asarray(path.vertices) for path in curves(figure).get_paths()]
    for got, wanted in zip(drawn, layout.routes, strict=True):
        np.testing.assert_array_equal(got, wanted)
    names = [*writer_names(tiny.LLAMA), "logits"]
    found = [text for text in texts(figure) if text in names]
    assert sorted(found) == sorted(names[node] for node in layout.places)
    assert texts(figure)[:2] == [
        r"Edges kept: \$a\$",
        f"{len(edges)} edges between {len(layout.places)} nodes",
    ]
    (legend,) = figure.legends
    counts = [text.get_text().rsplit(" ", 1)[1] for text in legend.get_texts()]
    assert counts == [f"({n})" for k in READERS if (n := int(np.sum(masks[k])))]


def test_strong_edges_are_thick_and_above() -> None:
    graph, masks = Graph.of(tiny.GPT2), some_edges(tiny.GPT2, 60)
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=mask.shape) for name, mask in masks.items()}
    figure = graph_figure(graph, masks, "t", scores)
    widths = np.asarray(curves(figure).get_linewidth())
    assert (np.diff(widths) > 0).all()
    edges = edge_list(graph, masks)
    flat = np.concatenate([scores[k][np.asarray(masks[k])] for k in READERS])
    colours = np.asarray(curves(figure).get_edgecolor())
    wanted = [to_rgb(LOOKS[edges[i].kind][1]) for i in np.argsort(flat)]
    np.testing.assert_allclose(colours[:, :3], wanted)
    assert "thicker" in texts(figure)[1]
    # Equal scores are drawn alike.
    same = graph_figure(graph, masks, "t", {name: np.ones(m.shape) for name, m in masks.items()})
    assert len(set(np.asarray(curves(same).get_linewidth()).tolist())) == 1


@pytest.mark.parametrize("ranked", [True, False])
def test_of_a_large_circuit_the_title_says_how_many_are_left_out(ranked: bool) -> None:
    graph, masks = Graph.of(GPT2_SMALL), some_edges(GPT2_SMALL, 3_000)
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=mask.shape) for name, mask in masks.items()}
    figure = graph_figure(graph, masks, "t", scores if ranked else None)
    paths, count = curves(figure).get_paths(), edge_count(masks)
    assert len(paths) == MOST_EDGES < count
    first, second = texts(figure)[1:3]
    names = [*writer_names(GPT2_SMALL), "logits"]
    shown = sum(text in names for text in texts(figure))
    which = "of highest score" if ranked else "nearest to the logits"
    assert first.startswith(f"The 300 of {count:,} edges {which}, between {shown} nodes")
    assert ("thicker" in first) == ranked
    widths = np.asarray(curves(figure).get_linewidth())
    assert (widths.max() - widths.min() > 1.7) == ranked
    nodes = 2 + len(used(GPT2_SMALL, masks))
    assert second.startswith(f"Not drawn: {count - 300:,} other edges")
    assert nodes == shown or second.endswith(f" and {nodes - shown} nodes that only they touch")


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    graph, masks = Graph.of(tiny.LLAMA), some_edges(tiny.LLAMA, 60)
    for name in ("a.png", "b.png"):
        save_picture(graph_figure(graph, masks, "t"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def written(folder: Path, model: mg.Model, circuit: mg.Circuit, figures: dict[str, Any]) -> str:
    """The page of a run that found a circuit."""
    metadata = {"task": "t", "model": "m", "data": {}, "method": "mine", "origin": {"prefix": ""}}
    more = {"training": {}, "graph": Graph.of(model.config)._asdict()}
    circuit = dataclasses.replace(circuit, metadata=metadata | more)
    sizes = mg.circuit_sizes(model.config, circuit.masks)
    results = run_folder.results_of(circuit, 0, sizes, figures)
    results["controls"] = dict.fromkeys(("circuit", "random", "complement", "empty"), figures)
    nodes = level_of(circuit.masks).nodes(model.config, circuit.masks)
    run_folder.write(folder, circuit, nodes, results)
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("most", [MOST_EDGES, 5])
def test_a_run_leaves_the_graph(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("gpt2")
    config: Any = mg.METHODS["eap"]
    circuit = mg.discover(jax.random.key(0), model, tiny.data(model.config), config(keep=0.3))
    figures = mg.evaluate(model, circuit, tiny.batch(model.config))
    monkeypatch.setattr(run_folder, "MOST_EDGES", most)
    page = written(tmp_path, model, circuit, figures)
    # Of edges always; of nodes if there are few between them.
    assert "graph.png" in page
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
    nodes = mg.Circuit(masks=some_nodes(model.config), metadata={})
    page = written(tmp_path, model, nodes, figures)
    drawn = most == MOST_EDGES
    assert ("graph.png" in page) == drawn == (tmp_path / "graph.png").exists()


def test_a_circuit_without_edges_has_no_graph(tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    empty = {name: np.zeros_like(mask) for name, mask in existing(model.config).items()}
    circuit = mg.Circuit(masks=jax.device_put(empty), metadata={})
    figures = mg.evaluate(model, circuit, tiny.batch(model.config))
    page = written(tmp_path, model, circuit, figures)
    assert "graph.png" not in page and not (tmp_path / "graph.png").exists()
