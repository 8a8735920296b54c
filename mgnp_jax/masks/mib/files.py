"""A circuit ↔ a file of EAP-IG and MIB: what of either the other can say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edge_graph import nodes_within, without_dangling
from mgnp_jax.masks.edges import READERS, Graph, existing
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS, as_bool
from mgnp_jax.masks.levels import EDGE, check_masks, level_of
from mgnp_jax.masks.mib import json_form, pt_form
from mgnp_jax.masks.mib.groups import (
    edges_of_groups,
    edges_of_heads,
    for_each_head,
    scores_of_groups,
)
from mgnp_jax.masks.mib.layout import Contents, arrays_of, graph_edges, matrix_of
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

FORMS: dict[str, ModuleType] = {".json": json_form, ".pt": pt_form}
"""How a file is written and read, by how its name ends."""


def export_mib(circuit: Circuit, model_config: ModelConfig, path: str | Path) -> None:
    """Writes a circuit as EAP-IG's `Graph.from_json` and `from_pt`, and MIB, read it.

    A circuit of edges is written with its scores, signed as they are. One of nodes is written as
    the edges between its nodes, heads and MLPs whole, with scores of heads and MLPs where it has
    them; what it leaves out inside of them, and constants for pruned nodes, such a file cannot say.
    Edges without a ranking, or of one in which some have −∞ and so are never to be kept, have the
    score 1 in the circuit, else 0, so that the reader has the same circuit whether it asks
    `in_graph` or takes as many edges of highest score: with NaN, which marks what is kept at every
    size, every edge would come first. With grouped queries the edges of a group are written for
    each of its query heads in the circuit, see `groups`.

    Args:
      circuit: of nodes or edges.
      model_config: of its model.
      path: new file, `.json` or, where PyTorch is installed, `.pt`.

    Raises:
      MgnpError: if the circuit is of another model, the file exists, its name ends otherwise, or it
        cannot be written.
    """
    file, form = _form(path)
    if file.exists():
        raise MgnpError(f"{file} exists already; pass a new file, nothing was written")
    contents = contents_of(circuit, model_config)
    try:
        form.write(file, contents, model_config)
    except OSError as error:
        raise MgnpError(f"{file} cannot be written: {error.strerror or error}") from None


def import_mib(path: str | Path, model_config: ModelConfig, *, absolute: bool = False) -> Circuit:
    """Reads a circuit of edges that EAP-IG, MIB or `export_mib` wrote; safe with a stranger's.

    What is in the circuit is what the file says of edges, even if it says of none that it is, as
    where edges are scored only: then `circuit.at(keep=…)` is a circuit. An edge without a score (it
    is NaN, or not there) ranks first, so it is kept at every size. Scores that are all equal, or
    say no more than what is in the circuit, are no ranking. Scores of nodes are not read. With
    grouped queries a key-value head reads what any of its query heads in the circuit reads, and an
    edge has the largest of its heads' scores; where the heads differ, `metadata["warnings"]` says
    so.

    Args:
      path: a `.json` file or, where PyTorch is installed, a `.pt` file.
      model_config: of the model that it should be of.
      absolute: rank edges by the size of their scores, as EAP-IG and MIB's CMD do; by default what
        is negative comes last, as for MIB's CPR.

    Returns:
      The circuit, of edges; `scores` None where the file has no ranking. Its metadata has the file
      as `source`, its `sha256`, `level` and `graph`; of which task it is, no file says.

    Raises:
      MgnpError: naming the file and the entry, if it is no such file, damaged, incomplete, of
        another model, or leaves out neurons of nodes that it keeps.
    """
    file, form = _form(path)
    contents = form.read(file, model_config)
    per_head = arrays_of(model_config, contents.edges & graph_edges(model_config))
    masks, differ = edges_of_groups(model_config, per_head)
    warned = []
    if differ:
        warned.append(
            f"{file} keeps {differ:,} edges by key or value for some query heads of a group alone; "
            "here the group reads once for all its heads, so this circuit is larger"
        )
    scores, differ = _ranking(contents, model_config, absolute)
    if differ:
        warned.append(
            f"{file} ranks {differ:,} edges by key or value otherwise for some query heads of a "
            "group; here the group has one such edge, with the largest of the scores"
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    metadata: dict[str, Any] = {
        "method": "imported",
        "source": str(file),
        "sha256": digest,
        "level": EDGE.name,
        "graph": Graph.of(model_config)._asdict(),
        "absolute": absolute,
        "warnings": warned,
    }
    return Circuit(masks=jax.device_put(masks), scores=scores, metadata=metadata)


def _form(path: str | Path) -> tuple[Path, ModuleType]:
    file = Path(path)
    if file.suffix not in FORMS:
        raise MgnpError(f"{file} must end in one of {', '.join(FORMS)}")
    return file, FORMS[file.suffix]


def contents_of(circuit: Circuit, model_config: ModelConfig) -> Contents:
    """What a file says of a circuit.

    Args:
      circuit: of nodes or edges.
      model_config: of its model.

    Raises:
      MgnpError: if it is of another model.
    """
    check_masks(model_config, circuit.masks, "the masks of the circuit")
    level = level_of(circuit.masks)
    edges = level.edges(model_config, as_bool(circuit.masks))
    kept = nodes_within(model_config, without_dangling(edges))
    matrix = matrix_of(model_config, edges_of_heads(model_config, edges))
    ranked = circuit.scores or {}
    if set(ranked) == set(READERS):
        there = existing(model_config)
        # Edges that are never to be kept, as where only some could be: no file can say that.
        if any((there[n] & ~(np.asarray(ranked[n]) > -np.inf)).any() for n in READERS):
            ranked = {}
    return Contents(
        edges=matrix,
        scores=_edge_scores(ranked, model_config) if set(ranked) == set(READERS) else None,
        nodes=_of_writers(matrix[0].any(), kept[ATTENTION_HEADS], kept[MLP_BLOCKS]).astype(bool),
        node_scores=_node_scores(ranked) if ATTENTION_HEADS in ranked else None,
    )


def _of_writers(first: Any, heads: Any, mlps: Any) -> np.ndarray:
    """[W] float32: of the input, then [L, H] of heads and [L] of MLPs, layer by layer."""
    each = np.concatenate([np.asarray(heads), np.asarray(mlps)[:, None]], axis=1)
    return np.concatenate([[first], each.ravel()]).astype(np.float32)


def _node_scores(ranked: Masks) -> np.ndarray:
    """Of heads, and of MLPs where they are ranked; NaN for none."""
    heads = np.asarray(ranked[ATTENTION_HEADS])
    found = _of_writers(np.nan, heads, ranked.get(MLP_BLOCKS, np.full(len(heads), np.nan)))
    return np.where(np.isfinite(found), found, np.float32(np.nan))


def _edge_scores(ranked: Masks, model_config: ModelConfig) -> np.ndarray:
    """With NaN for what is kept at every size, and 0 where the graph has no edge."""
    there = existing(model_config)
    found = {n: np.where(there[n], np.asarray(ranked[n], np.float32), 0) for n in READERS}
    found = {n: np.where(np.isinf(leaf), np.float32(np.nan), leaf) for n, leaf in found.items()}
    return matrix_of(model_config, for_each_head(model_config, found))


def _ranking(
    contents: Contents, model_config: ModelConfig, absolute: bool
) -> tuple[Masks | None, int]:
    """Scores by kind of reader, None where they rank nothing; and how many of groups differ."""
    graph = graph_edges(model_config)
    if contents.scores is None:
        return None, 0
    own = contents.scores[graph]
    if np.isnan(own).all() or own.min() == own.max() or (own == contents.edges[graph]).all():
        return None, 0
    scores = np.abs(contents.scores) if absolute else contents.scores
    scores = np.where(np.isnan(scores), np.float32(np.inf), scores)
    per_head = arrays_of(model_config, np.where(graph, scores, np.float32(-np.inf)))
    found, differ = scores_of_groups(model_config, per_head)
    return jax.device_put(found), differ
