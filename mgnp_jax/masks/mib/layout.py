"""The graph as EAP-IG lays it out: a row for each writer, a column for each reader.

Writers are in our order. Readers are, layer by layer, all heads by query, all by key, all by value,
then the MLP; last the logits. There every query head reads by a key and a value of its own, also
where several share them: such a graph has more edges than ours, see `groups`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.masks.edges import (
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    V_EDGES,
    existing,
    reader_names,
    writer_count,
    writer_names,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError

MEND = "write it again, or pass the model that it is of"
"""What to do about a file that cannot be used."""


class Contents(NamedTuple):
    """What a file says.

    Attributes:
      edges: [writers, readers] bool, whether an edge is in the circuit; where the graph has none
        it means nothing.
      scores: [writers, readers] float32, NaN where an edge has none; None where none has.
      nodes: [writers] bool, whether a node is in the circuit.
      node_scores: [writers] float32, NaN where a node has none; None where none has. Written, not
        read.
    """

    edges: np.ndarray
    scores: np.ndarray | None
    nodes: np.ndarray
    node_scores: np.ndarray | None = None


def ungrouped(model_config: ModelConfig) -> ModelConfig:
    """The shape of a model in which each query head has a key and a value of its own.

    Args:
      model_config: the model's shape.
    """
    return dataclasses.replace(model_config, kv_heads=model_config.heads)


def _columns(model_config: ModelConfig) -> dict[str, np.ndarray]:
    """Index of each reader's column, by kind; heads [L, H], MLPs [L], logits []."""
    heads = model_config.heads
    first = np.arange(model_config.layers) * (3 * heads + 1)
    each = first[:, None] + np.arange(heads)
    return {
        Q_EDGES: each,
        K_EDGES: each + heads,
        V_EDGES: each + 2 * heads,
        MLP_EDGES: first + 3 * heads,
        LOGITS_EDGES: np.array(model_config.layers * (3 * heads + 1)),
    }


def matrix_of(model_config: ModelConfig, arrays: Mapping[str, Any]) -> np.ndarray:
    """Arrays of edges as a matrix.

    Args:
      model_config: the model's shape.
      arrays: by kind of reader, of an ungrouped model.

    Returns:
      [writers, readers].
    """
    columns = _columns(model_config)
    rows = writer_count(model_config)
    count = int(columns[LOGITS_EDGES]) + 1
    found = np.zeros((count, rows), np.asarray(arrays[LOGITS_EDGES]).dtype)
    for name, column in columns.items():
        found[column] = np.asarray(arrays[name])
    return found.T


def arrays_of(model_config: ModelConfig, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """A matrix as arrays of edges.

    Args:
      model_config: the model's shape.
      matrix: [writers, readers].

    Returns:
      By kind of reader, of an ungrouped model.
    """
    return {name: matrix.T[column] for name, column in _columns(model_config).items()}


def graph_edges(model_config: ModelConfig) -> np.ndarray:
    """[writers, readers] which edges the graph has.

    Args:
      model_config: the model's shape.
    """
    return matrix_of(model_config, existing(ungrouped(model_config)))


def column_names(model_config: ModelConfig) -> list[str]:
    """The readers in the order of their columns: `a0.h0<q>`, …, `m0`, …, `logits`.

    Args:
      model_config: the model's shape.
    """
    names = reader_names(ungrouped(model_config))
    columns = _columns(model_config)
    found = [""] * (int(columns[LOGITS_EDGES]) + 1)
    for kind, column in columns.items():
        for index, name in zip(column.ravel(), names[kind].ravel()):
            found[index] = str(name)
    return found


def edge_places(model_config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Where each edge of the graph is in a matrix, by its name.

    Args:
      model_config: the model's shape.
    """
    writers, readers = writer_names(model_config), column_names(model_config)
    return {
        f"{writers[row]}->{readers[column]}": (int(row), int(column))
        for row, column in np.argwhere(graph_edges(model_config))
    }


def cfg_of(model_config: ModelConfig) -> dict[str, Any]:
    """What a file says of its model.

    Args:
      model_config: the model's shape.
    """
    return {
        "n_layers": model_config.layers,
        "n_heads": model_config.heads,
        "parallel_attn_mlp": model_config.parallel,
        "d_model": model_config.width,
    }


def check_cfg(what: str, cfg: Any, model_config: ModelConfig) -> None:
    """Refuses a file of a model of another shape.

    Args:
      what: the file.
      cfg: what it says of its model; more than `cfg_of` has is not looked at.
      model_config: of the model that it should be of.

    Raises:
      MgnpError: naming the entry, what was wanted and what was got.
    """
    if not isinstance(cfg, dict):
        raise MgnpError(f"{what}: cfg must be an object, got {shown(cfg)}; {MEND}")
    for name, wanted in cfg_of(model_config).items():
        got = cfg.get(name)
        # True equals 1.
        if type(got) is not type(wanted) or got != wanted:
            raise MgnpError(
                f"{what}: cfg {name} is {shown(got)}, this model ({model_config.family.name}) "
                f"has {wanted}; {MEND}"
            )


def check_whole_nodes(what: str, name: str, neurons: bool) -> None:
    """Refuses a circuit of neurons, which would be another one with its nodes whole.

    Args:
      what: the file.
      name: of a node that is in the circuit.
      neurons: whether all its neurons are.

    Raises:
      MgnpError: naming the node.
    """
    if not neurons:
        raise MgnpError(
            f"{what}: of node {shown(name)} some neurons are left out, and only whole nodes can be "
            "read here; convert the file to a circuit of edges first"
        )
