"""What removing each node alone changes, many nodes and prompts in one compiled pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.granularities import by_name, full_masks, gate_count
from mgnp_jax.methods.protocol import OnRecord, Saved, Saves
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.budget import PLAIN, attention_bytes
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.spans import Spans, spans_of
from mgnp_jax.types import Batch, Masks, Params

PASS_BYTES = 2**30
"""About the most bytes that a pass takes; for one node and prompt, if that takes more."""

PROMPTS_AT_ONCE, NODES_AT_ONCE = 32, 32
"""Most prompts of a pass, and most nodes each of which is removed from all of them."""


class Step(NamedTuple):
    """One compiled pass.

    Attributes:
      number: of it, from 0.
      rows: [P] prompts.
      real: how many of them count; the others only fill the row.
      nodes: [J] which node is removed from each copy; none where that is as large as their number.
    """

    number: int
    rows: np.ndarray
    real: int
    nodes: np.ndarray


def effects_of_removal(
    model: Model,
    batch: Batch,
    names: tuple[str, ...],
    figure: Figure,
    on_record: OnRecord,
    saves: Saves | None,
) -> dict[str, np.ndarray]:
    """What the figure loses if one node alone takes the corrupted run's value.

    Args:
      model: the model.
      batch: N prompts.
      names: granularities whose nodes are removed, coarse to fine.
      figure: that is higher where prompts are answered better.
      on_record: told how far it is.
      saves: where sums are put aside; None for nowhere.

    Returns:
      Float64 by name, mean over pairs; above zero where the full model is better.
    """
    c, spans = model.config, spans_of(batch)
    nodes = gate_count(c, names=names)
    steps = list(_steps(c, spans, nodes))
    sizes = spans.sizes(step.rows for step in steps)
    saved = None if saves is None else saves.latest()
    total = np.zeros(nodes) if saved is None else np.array(saved.trees["effects"]["total"])
    runs, loaded = None, None
    for step in steps[0 if saved is None else saved.done :]:
        if runs is None or loaded is not step.rows:
            runs, loaded = plain_runs(c, model.params, batch.take(step.rows), sizes), step.rows
        found = _losses(c, figure, names, model.params, step.nodes, runs)
        real = np.asarray(found, np.float64)[:, : step.real].sum(1)
        there = step.nodes < nodes
        total[step.nodes[there]] += real[there]
        done = step.number + 1
        on_record({"passing": True, "step": done, "of": len(steps)})
        if saves is not None:
            state = functools.partial(_packed, done, total)
            saves.between_steps(done, state, more=done < len(steps))
    return by_name(c, names, total / batch.pairs)


def _steps(c: ModelConfig, spans: Spans, nodes: int) -> Iterator[Step]:
    """Passes over all prompts and nodes, all nodes of some prompts before the next prompts."""
    each = _bytes(c, spans)
    prompts = len(spans.lengths)
    size = int(min(max(PASS_BYTES // each, 1), PROMPTS_AT_ONCE, prompts))
    at_once = int(min(max(PASS_BYTES // (each * size), 1), NODES_AT_ONCE, nodes))
    number = 0
    for rows, real in chunk_rows(prompts, size):
        for first in range(0, nodes, at_once):
            some = np.arange(first, first + at_once, dtype=np.int32)
            yield Step(number, rows, real, np.minimum(some, nodes))
            number += 1


def _bytes(c: ModelConfig, spans: Spans) -> int:
    """About what one prompt takes with one node removed: a layer's values, attention, logits."""
    longest = int((spans.lengths - spans.starts).max())
    inner = PLAIN * longest * (c.heads * c.head_width + c.mlp_width + c.width)
    attention = attention_bytes(c, 1, int(spans.lengths.max()))
    return 4 * (inner + PLAIN * c.vocab_size) + attention


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
@exact
def _losses(
    model_config: ModelConfig,
    figure: Figure,
    names: tuple[str, ...],
    params: Params,
    nodes: jax.Array,
    runs: CachedRuns,
) -> jax.Array:
    """[J, P] the figure of the full model less that without each node."""
    full = full_masks(model_config)

    def without(node: jax.Array) -> jax.Array:
        there = (jnp.arange(gate_count(model_config, names=names)) != node).astype(jnp.float32)
        masks: Masks = full | by_name(model_config, names, there)
        return figure(circuit_logits(model_config, params, masks, runs), runs)

    return figure(runs.base_logits, runs)[None] - jax.vmap(without)(nodes)


def _packed(done: int, total: np.ndarray) -> Saved:
    return Saved(done=done, trees={"effects": {"total": total.copy()}}, facts={})
