"""All that a page shows of a circuit, as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import READERS, edge_count, existing, reader_names, writer_names
from mgnp_jax.masks.granularities import ATTENTION_HEADS, TABLE
from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.masks.mib import json_form
from mgnp_jax.masks.mib.files import contents_of
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.report.page.evidence_form import carried
from mgnp_jax.report.page.headline import at
from mgnp_jax.report.page.packing import bits, compressed, npz
from mgnp_jax.report.page.sizes import steps_of
from mgnp_jax.tasks.answers import WHOLE
from mgnp_jax.types import Masks, plain_json

MOST_EDGES = 3_000
"""Edges of a circuit of edges that a page carries: those of highest score."""

FIGURES = (
    *("base", "circuit", "sizes", "parameters", "edges", "controls", "validation", "data"),
    *("train", "training"),
)
"""What of results.json the page shows, and its warnings."""

CONTROLLED = ("score", "accuracy", "kl", "base_score", "base_accuracy")
"""What must be known of a circuit that should fail for it to be drawn."""


class Shown(NamedTuple):
    """A circuit to be shown.

    Attributes:
      name: what to call it beside others, such as its folder.
      circuit: of nodes or edges.
      results: as in results.json; empty where it was never measured.
      curve: rows of curves.csv of its ranking: `keep`, `prunable_kept`, `edge_sparsity`, `kl`, ….
    """

    name: str
    circuit: Circuit
    results: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]] = ()


def content_of(
    shown: Shown,
    model_config: ModelConfig,
    *,
    evidence: Mapping[str, Any] | None = None,
    others: Sequence[Shown] = (),
) -> dict[str, Any]:
    """What the page of a circuit is made of.

    Args:
      shown: the circuit.
      model_config: of its model.
      evidence: as `Evidence.as_page()` returns it; None for what the circuit alone tells.
      others: circuits of the same model to put beside it.

    Returns:
      A JSON object. `kept` has bits by granularity, see `packing.bits`.

    Raises:
      MgnpError: if evidence or another circuit is of another model.
    """
    circuit, level = shown.circuit, level_of(shown.circuit.masks)
    nodes = level.nodes(model_config, circuit.masks)
    steps = steps_of(circuit, model_config)
    first = steps.pop("first_edges") if steps else {}
    c = model_config
    return {
        "title": title_of(shown),
        "level": level.name,
        "shape": {
            **{"layers": c.layers, "heads": c.heads, "kv_heads": c.kv_heads},
            **{"head_width": c.head_width, "mlp_width": c.mlp_width, "width": c.width},
            "parallel": c.parallel,
        },
        "granularities": {name: kind.label for name, kind in TABLE.items()},
        "kept": {name: bits(nodes[name]) for name in TABLE},
        "kept_edges": edge_count(level.edges(c, circuit.masks)),
        "results": results_shown(shown.results),
        "steps": steps,
        "curve": [plain_json(dict(row)) for row in shown.curve],
        "edges": _edge_rows(circuit, model_config, first) if level is EDGE else [],
        "evidence": None if evidence is None else carried(plain_json(evidence), model_config),
        "files": {"mib": mib_text(circuit, model_config), "masks": npz(circuit.masks)},
        "others": [beside(shown, other, model_config) for other in others],
    }


def title_of(shown: Shown) -> dict[str, Any]:
    """What a circuit is of, and how it was found.

    Args:
      shown: the circuit; its results are asked first, then its metadata.
    """
    said = {**shown.circuit.metadata, **shown.results}
    found = {name: said.get(name) for name in ("task", "model", "method", "seed")}
    return {"name": shown.name, **found, "at": plain_json(said.get("at"))}


def results_shown(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of results.json.

    Args:
      results: as in that file.
    """
    found = {name: results[name] for name in FIGURES if isinstance(results.get(name), Mapping)}
    if results.get("answer") == WHOLE:
        found["answer"] = WHOLE
    texts = results.get("warnings")
    found["warnings"] = [str(text) for text in texts] if isinstance(texts, list) else []
    found["controls"] = {
        name: figures
        for name, figures in found.get("controls", {}).items()
        if all(at(figures, figure) is not None for figure in CONTROLLED)
    }
    return plain_json(found)


def beside(shown: Shown, other: Shown, model_config: ModelConfig) -> dict[str, Any]:
    """Another circuit of the same model, and what both have in common.

    Args:
      shown: the page's circuit.
      other: the other one.
      model_config: of the model of both.

    Returns:
      A JSON object; `overlap` has, by granularity and for edges, how many are in the one, in the
      other, and in both.

    Raises:
      MgnpError: if it is of another model.
    """
    ours, theirs = (_all_kinds(each.circuit, model_config) for each in (shown, other))
    kinds = [*TABLE, "edges"]
    return {
        "title": title_of(other),
        "results": results_shown(other.results),
        "curve": [plain_json(dict(row)) for row in other.curve],
        "kept": {name: bits(theirs[name]) for name in TABLE},
        "overlap": {
            name: [int(m.sum()) for m in (ours[name], theirs[name], ours[name] & theirs[name])]
            for name in kinds
        },
    }


def _all_kinds(circuit: Circuit, model_config: ModelConfig) -> dict[str, np.ndarray]:
    """Bool arrays by granularity, and all edges as one array."""
    level = level_of(circuit.masks)
    found = {n: np.asarray(m, bool) for n, m in level.nodes(model_config, circuit.masks).items()}
    edges = level.edges(model_config, circuit.masks)
    found["edges"] = np.concatenate([np.asarray(edges[name], bool).ravel() for name in READERS])
    return found


def _edge_rows(
    circuit: Circuit, model_config: ModelConfig, first: Mapping[str, Sequence[int]]
) -> list[list[Any]]:
    """Writer, reader, whether it is kept, its score, the step from which on it is in.

    Kept edges come first, then the others of a ranking by their score.
    """
    heads = np.asarray(EDGE.nodes(model_config, circuit.masks)[ATTENTION_HEADS])
    writers, readers = writer_names(model_config), reader_names(model_config, heads)
    there = existing(model_config)
    ranked: Masks = circuit.scores or {}
    rows: list[list[Any]] = []
    for kind in READERS:
        kept = np.asarray(circuit.masks[kind], bool)
        wanted = there[kind] if kind in first else kept
        scores = np.asarray(ranked[kind]) if kind in ranked else None
        for place in np.argwhere(wanted):
            *reader, writer = place.tolist()
            index = tuple(place)
            score = float(scores[index]) if scores is not None else None
            step = first[kind][int(np.ravel_multi_index(index, kept.shape))] if first else None
            name = str(readers[kind][tuple(reader)])
            rows.append([writers[writer], name, int(kept[index]), score, step])
    rows.sort(key=lambda row: (-row[2], -(row[3] if row[3] is not None else 0.0)))
    return plain_json(rows[:MOST_EDGES])


def mib_text(circuit: Circuit, model_config: ModelConfig) -> str:
    """The file that `export_mib` writes of a circuit, gzipped, as base64.

    Args:
      circuit: of nodes or edges.
      model_config: of its model.
    """
    text = json_form.text_of(contents_of(circuit, model_config), model_config)
    return compressed(text.encode())
