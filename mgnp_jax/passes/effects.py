"""Effects of all edges or nodes, averaged over prompts and along a path, chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mgnp_jax.masks.edges import full_edges, writer_count
from mgnp_jax.masks.granularities import full_masks
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.models.mesh import on_host
from mgnp_jax.passes.attribution import (
    Figure,
    clean_embedding,
    edge_differences,
    edge_effects,
    node_differences,
    node_effects,
)
from mgnp_jax.passes.cached_runs import CachedRuns, both_runs, plain_runs
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.spans import Spans, spans_of
from mgnp_jax.types import Batch, Masks, Params, Record

CHUNK_BYTES = 2**30
"""About the most bytes that are taken at a time; for one prompt, if that takes more."""

AT_ONCE = 32
"""Most prompts at a time."""


class Path(NamedTuple):
    """Where gradients are taken: 1 is clean, 0 is corrupted.

    Attributes:
      along: the embeddings of the untouched model (`inputs`), or the masks of everything at once
        (`activations`).
      points: of it; None for a random one of each prompt's, as often as `steps` says.
      steps: how many.
    """

    along: Literal["inputs", "activations"]
    points: tuple[float, ...] | None
    steps: int


class Kind(NamedTuple):
    """What edges and nodes have in common here.

    Attributes:
      differences: (model's config, params, prompts, their clean values) → less corrupted ones.
      effects: (model's config, figure, params, embedding, prompts, differences) → effects, with
        gradients of the model on that embedding.
      full: (model's config, value) → masks.
      floats: model's config → about how many numbers a token takes.
    """

    differences: Callable[[ModelConfig, Params, CachedRuns, SiteValues], Any]
    effects: Callable[[ModelConfig, Figure, Params, jax.Array, CachedRuns, Any], Masks]
    full: Callable[[ModelConfig, float], Masks]
    floats: Callable[[ModelConfig], int]


def _kept(c: ModelConfig) -> int:
    """Numbers that a pass keeps of a token for its gradient, and of its corrupted run."""
    return 8 * c.layers * (c.heads * c.head_width + 2 * c.width + c.mlp_width)


EDGES = Kind(
    differences=edge_differences,
    effects=edge_effects,
    full=full_edges,
    # Beside what writers write and its copy (through norms, too), a layer's readers' gradients.
    floats=lambda c: (
        _kept(c)
        + c.width * ((2 + c.norm_after) * writer_count(c) + 4 * (c.heads + 2 * c.kv_heads + 1))
    ),
)

NODES = Kind(
    differences=lambda c, params, runs, clean: node_differences(runs, clean),
    effects=node_effects,
    full=full_masks,
    floats=_kept,
)


def effects(
    key: jax.Array,
    model: Model,
    batch: Batch,
    kind: Kind,
    figure: Figure,
    path: Path,
    on_record: Callable[[Record], None],
    most_bytes: int = CHUNK_BYTES,
    most_prompts: int = AT_ONCE,
) -> dict[str, np.ndarray]:
    """First-order effects of keeping each edge or node instead of corrupting it.

    Args:
      key: [] typed key; consumed, for random points.
      model: the model.
      batch: N prompts.
      kind: of what.
      figure: that is affected.
      path: where gradients are taken; they are averaged.
      on_record: told how far it is.
      most_bytes: about the most that a pass takes; for one prompt, if that takes more.
      most_prompts: of a pass.

    Returns:
      Float64 by name, mean over pairs, summed over their rows and positions; above zero raises
      the figure.
    """
    model_config, params = model.config, model.params
    spans = spans_of(batch)
    size = min(chunk_prompts(model_config, kind, spans, most_bytes), most_prompts)
    chunks = list(chunk_rows(len(batch), size))
    sizes = spans.sizes(rows for rows, _ in chunks)
    total: dict[str, np.ndarray] = {}
    done = 0
    for number, (rows, real) in enumerate(chunks):
        # The last chunk has some of the first prompts again, which must not count twice.
        part = rows[:real]
        chunk_sizes = sizes if real == len(rows) else spans.sizes([part])
        own = jax.random.fold_in(key, number)
        if path.along == "inputs":
            both = both_runs(model_config, params, batch.take(part), chunk_sizes)
            summed = _along_inputs(own, model, *both, kind, figure, path)
        else:
            runs = plain_runs(model_config, params, batch.take(part), chunk_sizes)
            summed = _along_masks(model, runs, kind, figure, path)
        found = on_host(summed)
        for name, leaf in found.items():
            total[name] = total.get(name, 0.0) + np.asarray(leaf, np.float64)
        done += real
        on_record({"passing": True, "prepared": done, "of": len(batch)})
    return {name: leaf / (batch.pairs * path.steps) for name, leaf in total.items()}


def chunk_prompts(
    model_config: ModelConfig, kind: Kind, spans: Spans, most_bytes: int = CHUNK_BYTES
) -> int:
    """How many prompts go together; sums round by it, so methods ask for no less memory.

    Args:
      model_config: the model's shape.
      kind: of what.
      spans: of the prompts.
      most_bytes: see `effects`.
    """
    longest = int((spans.lengths - spans.starts).max())
    each = 4 * longest * kind.floats(model_config)
    return int(min(max(most_bytes // each, 1), AT_ONCE, len(spans.lengths)))


def _along_inputs(
    key: jax.Array,
    model: Model,
    runs: CachedRuns,
    values: SiteValues,
    kind: Kind,
    figure: Figure,
    path: Path,
) -> Masks:
    """Effects with gradients on embeddings between corrupted and clean ones, summed over points."""
    model_config, params = model.config, model.params
    differences = kind.differences(model_config, params, runs, values)
    clean, corrupted = clean_embedding(model_config, params, runs), runs.corrupted.embedding
    prompts, found = len(runs.layout.answers), []
    for step in range(path.steps):
        if path.points is None:
            own = jax.random.uniform(jax.random.fold_in(key, step), (prompts,))
        else:
            own = np.full(prompts, path.points[step], np.float32)
        between = _between(clean, corrupted, own, runs.layout.prompts)
        found.append(kind.effects(model_config, figure, params, between, runs, differences))
    return jax.tree.map(lambda *leaves: sum(leaves), *found)


@jax.jit
def _between(
    clean: jax.Array, corrupted: jax.Array, part: jax.Array, prompts: jax.Array
) -> jax.Array:
    """[K, D]: each prompt's own part of the way from corrupted to clean embeddings."""
    return corrupted + part[prompts][:, None] * (clean - corrupted)


def _along_masks(model: Model, runs: CachedRuns, kind: Kind, figure: Figure, path: Path) -> Masks:
    """Effects with gradients in the masks where all have one value, summed over points."""
    assert path.points is not None
    masks = [kind.full(model.config, point) for point in path.points]
    found = [mask_gradient(model.config, figure, model.params, each, runs) for each in masks]
    return jax.tree.map(lambda *leaves: sum(leaves), *found)


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def mask_gradient(
    model_config: ModelConfig, figure: Figure, params: Params, masks: Masks, runs: CachedRuns
) -> Masks:
    """The gradient of a figure in masks.

    Args:
      model_config: the model's shape.
      figure: static; summed over the prompts.
      params: the model's weights.
      masks: where it is taken.
      runs: B prompts with their plain passes.
    """

    def total(masks: Masks) -> jax.Array:
        return figure(circuit_logits(model_config, params, masks, runs), runs).sum()

    return jax.grad(total)(masks)
