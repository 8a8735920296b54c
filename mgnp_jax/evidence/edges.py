"""Which of the edges between a circuit's nodes matter most, by attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mgnp_jax.evidence.chunks import FIGURES as NAMES
from mgnp_jax.evidence.chunks import Load
from mgnp_jax.masks.edges import reader_names, writer_names
from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.effects import CHUNK_BYTES, EDGES, Path, effects
from mgnp_jax.types import Batch, Masks, Record

AT_CLEAN = Path("inputs", (1.0,), 1)
"""Gradients of the model on the clean prompts."""

AT_ONCE = 16
"""Most prompts at a time, so that usual numbers of them come to chunks of one size: a last one of
its own size is compiled again, which takes longer than it runs."""


def strongest_edges(
    model: Model,
    masks: Masks,
    batch: Batch,
    most: int,
    load: Load,
    on_record: Callable[[Record], None],
) -> list[list[Any]]:
    """Edges between kept nodes, by first-order effects on the score in the full model.

    Args:
      model: the model.
      masks: bool, of the circuit.
      batch: N prompts.
      most: how many at most.
      load: how much goes together.
      on_record: told how far it is.

    Returns:
      [writer, reader, attribution], strongest first; above zero raises the score.
    """
    c = model.config
    # No point of the path is random, so the key decides nothing.
    key = jax.random.key(0)
    room, figure = max(min(load.bytes, CHUNK_BYTES), 1), FIGURES[NAMES[0]]
    found = effects(key, model, batch, EDGES, figure, AT_CLEAN, on_record, room, AT_ONCE)
    level = level_of(masks)
    kept, heads = level.edges(c, masks), level.nodes(c, masks)[ATTENTION_HEADS]
    writers, readers = writer_names(c), reader_names(c, np.asarray(heads))
    rows = []
    for name, mask in kept.items():
        for *reader, writer in np.argwhere(np.asarray(mask, bool)):
            value = float(found[name][(*reader, writer)])
            rows.append([writers[writer], str(readers[name][tuple(reader)]), value])
    rows.sort(key=lambda row: -abs(row[2]))
    return rows[:most]
