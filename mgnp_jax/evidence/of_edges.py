"""Effects of the nodes of a circuit of edges: a node that leaves takes all its edges along."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence import addition
from mgnp_jax.evidence.chunks import Progress, figures
from mgnp_jax.evidence.lens import logit_lens
from mgnp_jax.evidence.of_nodes import Change, Sums, nothing_tried, put
from mgnp_jax.evidence.removal import Nodes
from mgnp_jax.masks.edge_graph import nodes_within
from mgnp_jax.masks.edges import LOGITS_EDGES, first_writer, writer_count
from mgnp_jax.masks.granularities import ATTENTION_BLOCKS, ATTENTION_HEADS, MLP_BLOCKS
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.attribution import clean_embedding
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.edge_forward import WholeRun, edge_logits, edge_logits_after, whole_run
from mgnp_jax.passes.edge_reads import norms_of, seen
from mgnp_jax.passes.layer_steps import stacked_layers
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.single_nodes import empty_run
from mgnp_jax.types import Masks, Params


class EdgeCircuit:
    """A circuit of edges, as evidence is gathered of it; of its neurons nothing can be said."""

    def __init__(self, model: Model, masks: Masks) -> None:
        """Looks which nodes it goes through.

        Args:
          model: the model.
          masks: bool arrays by kind of reader.
        """
        whole = nodes_within(model.config, masks)
        self.model, self.nodes = model, {n: np.asarray(mask, bool) for n, mask in whole.items()}
        self._masks = {name: jnp.asarray(mask, jnp.float32) for name, mask in masks.items()}

    def exact(
        self,
        runs: CachedRuns,
        weights: np.ndarray,
        leaving: Sequence[Nodes],
        joining: Sequence[Nodes],
        progress: Progress,
    ) -> Sums:
        """Takes nodes out, and puts them alone between the input and the logits.

        Args:
          runs: B prompts.
          weights: [B] of them.
          leaving: nodes of the circuit.
          joining: any heads and blocks.
          progress: counts passes.

        Returns:
          `removal` and `addition` [2, …] by granularity, NaN where nothing was tried; `joining`,
          which is empty; the `lens`: what is written so far along kept edges to the logits; and,
          no sum, the circuit's `logits` [B, V].
        """
        c, params = self.model.config, self.model.params
        whole = whole_run(c, params, runs, self._masks)
        logits = _logits_of(c, params, self._masks, runs)
        base = _figures_of(logits, runs)
        removal, joined = nothing_tried(c), nothing_tried(c)
        for nodes in leaving:
            writers = _writers(c, nodes)
            first = np.int32(nodes.layer)
            found = _without(c, params, self._masks, runs, whole, first, writers)
            put(removal, nodes.names, nodes.places, found, base, weights)
            progress()
        read = clean_embedding(c, params, runs)
        written = runs.corrupted.embedding[runs.layout.answers]
        empty = empty_run(c, params, runs, read, written)
        change = Change(self.model, runs, weights, progress)
        change.measure(
            joining, lambda nodes: addition.alone(c, params, empty, nodes), empty.residual, joined
        )
        streams = _read_after_layers(c, params, self._masks, runs, whole)
        lens = logit_lens(c, params, streams, runs.targets, weights)
        found = {"removal": removal, "addition": joined, "joining": {}, "lens": lens}
        return jax.device_get({**found, "logits": logits})


@jax.jit
def _figures_of(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    """[2, B] of a circuit's logits [B, V]."""
    return figures(logits, runs)


def _writers(model_config: ModelConfig, nodes: Nodes) -> np.ndarray:
    """[J, W] bool, which writers each node is."""
    found = np.zeros((nodes.size, writer_count(model_config)), bool)
    first, heads = first_writer(model_config, nodes.layer), model_config.heads
    for row, name, place in zip(found, nodes.names, nodes.places):
        if name == ATTENTION_HEADS:
            row[first + place[1]] = True
        elif name == ATTENTION_BLOCKS:
            row[first : first + heads] = True
        else:
            assert name == MLP_BLOCKS, f"edges do not tell {name} apart"
            row[first + heads] = True
    return found


@functools.partial(jax.jit, static_argnums=0)
def _logits_of(
    model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns
) -> jax.Array:
    """[B, V] of the circuit."""
    return edge_logits(model_config, params, masks, runs)


@functools.partial(jax.jit, static_argnums=0)
@exact
def _without(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    whole: WholeRun,
    first: jax.Array,
    writers: jax.Array,
) -> jax.Array:
    """[J, 2, B] of the circuit without the edges from some writers [J, W]."""

    def one(gone: jax.Array) -> jax.Array:
        kept = {
            name: gate * (~gone).astype(gate.dtype).reshape((1,) * (gate.ndim - 1) + gone.shape)
            for name, gate in masks.items()
        }
        logits = edge_logits_after(model_config, params, kept, runs, whole, first)
        return figures(logits, runs)

    return jax.vmap(one)(writers)


@functools.partial(jax.jit, static_argnums=0)
@exact
def _read_after_layers(
    model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns, whole: WholeRun
) -> jax.Array:
    """[L + 1, B, D] what the logits would read after the embedding and each layer."""
    c, answers = model_config, runs.layout.answers
    (values,) = runs.corrupted.values
    more = (values.attn_out + values.mlp_out)[:, answers]
    before = jnp.concatenate([runs.corrupted.embedding[answers][None], more]).cumsum(0)
    stops = first_writer(c, jnp.arange(c.layers + 1))
    there = jnp.arange(writer_count(c))[None] < stops[:, None]
    gates = jnp.where(there, masks[LOGITS_EDGES][None], 0)
    norms = norms_of(stacked_layers(c, params), runs.corrupted)
    written = whole.written[:, answers]
    if norms is None:
        return before + jnp.einsum("lw,wbd->lbd", gates, written)

    def after(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, layers = inputs
        return seen(c, norms.at(answers), own[None], written, layers)[0]

    return before + jax.lax.map(after, (gates, jnp.arange(c.layers + 1)))
