"""EAP-IG's JSON: `cfg`, `nodes` and `edges`, the latter two by name.

Upstream's reader wants a score of every edge, and raises if the logits have one. A score that is
NaN, or is not there, as in MIB's binary circuits, is none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.files import read_object, replacing, shown
from mgnp_jax.masks.edges import writer_names
from mgnp_jax.masks.mib.layout import (
    MEND,
    Contents,
    cfg_of,
    check_cfg,
    check_whole_nodes,
    edge_places,
    graph_edges,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError

LOGITS = "logits"
"""The reader that is among the nodes, but writes nothing."""

BYTES_PER_ENTRY = 256
"""Most of an edge or node, indented or not; upstream writes half of it."""

LARGEST_SCORE = float(np.finfo(np.float32).max)


def text_of(contents: Contents, model_config: ModelConfig) -> str:
    """What a file says.

    Args:
      contents: in it.
      model_config: the model's shape.
    """
    nodes: dict[str, dict[str, Any]] = {
        name: {"in_graph": bool(kept)}
        for name, kept in zip(writer_names(model_config), contents.nodes)
    }
    if contents.node_scores is not None:
        for entry, score in zip(nodes.values(), contents.node_scores):
            entry["score"] = float(score)
    nodes[LOGITS] = {"in_graph": True}
    # Where nothing ranks, edges in the circuit rank above the others.
    scores = contents.edges.astype(np.float32) if contents.scores is None else contents.scores
    edges = {
        name: {"score": float(scores[place]), "in_graph": bool(contents.edges[place])}
        for name, place in edge_places(model_config).items()
    }
    return json.dumps({"cfg": cfg_of(model_config), "nodes": nodes, "edges": edges})


def write(file: Path, contents: Contents, model_config: ModelConfig) -> None:
    """Writes a file, whole or not at all.

    Args:
      file: where.
      contents: in it.
      model_config: the model's shape.
    """
    text = text_of(contents, model_config)
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8")


def read(file: Path, model_config: ModelConfig) -> Contents:
    """Reads a file of anyone's.

    Args:
      file: to be read.
      model_config: of the model that it should be of.

    Returns:
      What it says, without scores of nodes and neurons.

    Raises:
      MgnpError: naming the file and the entry, if it is larger than one of this model can be, no
        JSON, of another model, lacks a node or an edge, or has one that the model lacks, or twice.
    """
    most = (int(graph_edges(model_config).sum()) + 5_000) * BYTES_PER_ENTRY
    found = read_object(file, MEND, most=most, pairs=lambda pairs: _once(file, pairs))
    for name in ("cfg", "nodes", "edges"):
        if not isinstance(found.get(name), dict):
            got = shown(found.get(name))
            raise MgnpError(f"{file}: wanted an object named {name!r}, got {got}; {MEND}")
    check_cfg(str(file), found["cfg"], model_config)
    return Contents(
        nodes=_nodes(file, found["nodes"], model_config),
        **_edges(file, found["edges"], model_config),
    )


def _once(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise MgnpError(f"{file}: entry {shown(twice)} stands there twice; {MEND}")
    return found


def _check_names(file: Path, kind: str, found: dict[str, Any], wanted: Any) -> None:
    """Refuses other entries than the graph has; one that was cut short has too few."""
    if unknown := [name for name in found if name not in wanted]:
        raise MgnpError(
            f"{file}: {kind} {shown(unknown[0])} is none of this model's"
            + (f", and {len(unknown) - 1:,} more" if unknown[1:] else "")
            + f"; {MEND}"
        )
    if missing := [name for name in wanted if name not in found]:
        raise MgnpError(
            f"{file}: {kind} {missing[0]!r} is missing"
            + (f", and {len(missing) - 1:,} more" if missing[1:] else "")
            + f"; wanted every {kind} of the model, those left out with in_graph false"
        )


def _in_graph(what: str, entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("in_graph"), bool):
        raise MgnpError(
            f"{what} must be an object with in_graph true or false, got {shown(entry)}; {MEND}"
        )
    return entry["in_graph"]


def _nodes(file: Path, found: dict[str, Any], model_config: ModelConfig) -> np.ndarray:
    wanted = writer_names(model_config)
    _check_names(file, "node", found, dict.fromkeys([*wanted, LOGITS]))
    for name, entry in found.items():
        if _in_graph(f"{file}: node {name!r}", entry) and "neurons" in entry:
            check_whole_nodes(str(file), name, _all_true(entry["neurons"]))
    return np.array([found[name]["in_graph"] for name in wanted])


def _all_true(neurons: Any) -> bool:
    """Whether nothing is left out of lists of neurons, which of heads upstream nests."""
    if isinstance(neurons, list):
        return all(map(_all_true, neurons))
    return neurons is True


def _edges(file: Path, found: dict[str, Any], model_config: ModelConfig) -> dict[str, np.ndarray]:
    places = edge_places(model_config)
    _check_names(file, "edge", found, places)
    shape = graph_edges(model_config).shape
    edges, scores = np.zeros(shape, bool), np.full(shape, np.nan, np.float32)
    for name, place in places.items():
        what = f"{file}: edge {name!r}"
        edges[place] = _in_graph(what, found[name])
        scores[place] = _score(what, found[name].get("score", np.nan))
    return {"edges": edges, "scores": scores}


def _score(what: str, score: Any) -> float:
    number = isinstance(score, int | float) and not isinstance(score, bool)
    # Only NaN differs from itself.
    if not number or (score == score and abs(score) > LARGEST_SCORE):
        raise MgnpError(
            f"{what} has the score {shown(score)}, wanted a finite number, or NaN for none; {MEND}"
        )
    return float(score)
