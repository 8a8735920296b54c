"""In which order edges are tested: readers before what they read, all edges as one row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    READERS,
    edge_shapes,
    existing,
    first_writer,
)
from mgnp_jax.models.config import ModelConfig


class Reader(NamedTuple):
    """What reads, and which nodes write what it makes of that.

    Attributes:
      kind: of reader.
      index: among its kind.
      layer: of the model; L for the logits.
      writers: that have it; none of the logits, whose edges are all tested.
    """

    kind: str
    index: tuple[int, ...]
    layer: int
    writers: tuple[int, ...]


class Order(NamedTuple):
    """All edges of a model, readers from the logits backwards, of each the latest writer first.

    Attributes:
      readers: in their order.
      edges: [n] places of the edges in the row of all arrays, `READERS`' order, raveled.
      of: [n] which reader each is into.
      layers: [n] that reader's layer.
      ranks: [all] place in this order of every place in the row; −1 where the model has no edge.
    """

    readers: tuple[Reader, ...]
    edges: np.ndarray
    of: np.ndarray
    layers: np.ndarray
    ranks: np.ndarray


def order_of(model_config: ModelConfig) -> Order:
    """The order in which edges are tested.

    Heads of a layer do not read each other: their values come first, then keys, then queries, of
    each the last head first.

    Args:
      model_config: the model's shape.
    """
    size = sum(math.prod(shape) for shape in edge_shapes(model_config).values())
    places = by_kind(model_config, np.arange(size))
    there = existing(model_config)
    readers = tuple(_readers(model_config))
    rows = [places[r.kind][r.index][there[r.kind][r.index]][::-1] for r in readers]
    counts = [len(row) for row in rows]
    of = np.repeat(np.arange(len(readers)), counts)
    layers = np.repeat([r.layer for r in readers], counts)
    edges, ranks = np.concatenate(rows), np.full(size, -1, np.int32)
    ranks[edges] = np.arange(len(edges))
    return Order(readers=readers, edges=edges, of=of, layers=layers, ranks=ranks)


def _readers(c: ModelConfig) -> Iterator[Reader]:
    """All readers, those that read the latest first."""
    yield Reader(LOGITS_EDGES, (), c.layers, ())
    for layer in reversed(range(c.layers)):
        first = first_writer(c, layer)
        yield Reader(MLP_EDGES, (layer,), layer, (first + c.heads,))
        for kind in reversed(HEAD_EDGES):
            count = getattr(c, READERS[kind][1])
            of_one = c.heads // count
            for head in reversed(range(count)):
                heads = range(first + head * of_one, first + (head + 1) * of_one)
                yield Reader(kind, (layer, head), layer, tuple(heads))


def by_kind(model_config: ModelConfig, row: Any) -> dict[str, Any]:
    """A row of all edges as arrays by kind of reader; views of it if it is NumPy's.

    Args:
      model_config: the model's shape.
      row: [all] as `Order.edges` counts them.
    """
    found, start = {}, 0
    for kind, shape in edge_shapes(model_config).items():
        size = math.prod(shape)
        found[kind] = row[start : start + size].reshape(shape)
        start += size
    return found
