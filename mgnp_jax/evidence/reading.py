"""The clean run read head by head: where heads look, what nodes write, what drives neurons."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence.attention import kinds_of_positions
from mgnp_jax.evidence.chunks import Load, Progress
from mgnp_jax.evidence.lens import logit_lens
from mgnp_jax.evidence.writes import direct, neurons_normed
from mgnp_jax.metrics.scores import in_its_pair
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.attribution import clean_embedding
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.spans import packed_tokens, spans_of
from mgnp_jax.passes.whole_prompts import last_attention
from mgnp_jax.types import Batch


def read_clean(
    model: Model, runs: CachedRuns, clean: SiteValues, weights: np.ndarray
) -> dict[str, Any]:
    """What the clean run says of all nodes at the answer position.

    Args:
      model: the model.
      runs: B prompts of K tokens.
      clean: [L, K, …] the full model's node values.
      weights: [B] of the prompts.

    Returns:
      Summed over prompts: the `lens`, and `direct` as `writes.direct` has it.
    """
    c, params = model.config, model.params
    embedding = clean_embedding(c, params, runs)
    streams = _streams_at_answers(runs, embedding, clean)
    return {
        "lens": logit_lens(c, params, streams, runs.targets, weights),
        "direct": direct(c, params, runs, embedding, clean, weights),
    }


@jax.jit
def _streams_at_answers(runs: CachedRuns, embedding: jax.Array, clean: SiteValues) -> jax.Array:
    """[L + 1, B, D] residual stream of the full model."""
    answers = runs.layout.answers
    more = (clean.attn_out + clean.mlp_out)[:, answers]
    return jnp.concatenate([embedding[answers][None], more]).cumsum(0)


class Neurons(NamedTuple):
    """Some MLP neurons.

    Attributes:
      layers: [J] int.
      neurons: [J] int, which of the layer.
    """

    layers: np.ndarray
    neurons: np.ndarray

    def by_layer(self, layers: int) -> tuple[np.ndarray, np.ndarray]:
        """The same layer by layer, each filled up to the longest.

        Args:
          layers: L.

        Returns:
          [L, M] int which neurons, and [J] int the place of each in its layer.
        """
        counts = np.bincount(self.layers, minlength=layers)
        table = np.zeros((layers, max(int(counts.max(initial=0)), 1)), np.int32)
        places = np.zeros(len(self.layers), np.int32)
        seen = np.zeros(layers, int)
        for i, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
            places[i] = seen[layer]
            table[layer, places[i]] = neuron
            seen[layer] += 1
        return table, places


class Whole(NamedTuple):
    """What whole clean prompts say.

    Attributes:
      attends: [L, H] by kind of position, mean over prompts that have one.
      normed: [J, D] what the neurons write after the frozen norm, mean over pairs.
      activations: [J, N, T] of the neurons; NaN beyond a prompt's end.
    """

    attends: dict[str, np.ndarray]
    normed: np.ndarray
    activations: np.ndarray


def read_whole(
    model: Model, batch: Batch, neurons: Neurons, load: Load, progress: Progress
) -> Whole:
    """Runs whole clean prompts: what stands before a pair's first difference counts, too.

    Args:
      model: the model.
      batch: N prompts.
      neurons: J of which more is wanted.
      load: how many prompts go together.
      progress: counts passes.
    """
    c, params = model.config, model.params
    kinds = kinds_of_positions(batch)
    stacked = np.stack(list(kinds.values()))
    table, places = neurons.by_layer(c.layers)
    spans, chunks = spans_of(batch, share_prefix=False), list(load.chunks(batch))
    sizes = spans.sizes(chunk.rows for chunk in chunks)
    sizes = sizes._replace(positions=batch.clean.shape[1])
    progress.total += len(chunks)
    attends = np.zeros((c.layers, len(kinds), c.heads))
    normed = np.zeros((len(places), c.width))
    activations = np.full((len(places), *batch.clean.shape), np.nan, np.float32)
    for chunk in chunks:
        layout = spans.layout(chunk.rows, sizes)
        tokens, _ = packed_tokens(chunk.batch, layout)
        seen, active, whole, projected = last_attention(
            c, params, tokens, layout, stacked[:, chunk.rows], table
        )
        has = stacked[:, chunk.rows].any(-1) * chunk.weights
        attends += np.einsum("lcbh,cb->lch", np.asarray(seen, np.float64), has)
        own = np.asarray(active)[neurons.layers, :, places]
        used = np.asarray(layout.used) & (chunk.weights > 0)[layout.prompts]
        rows = chunk.rows[layout.prompts[used]]
        activations[:, rows, layout.positions[used]] = own[:, used]
        if len(places):
            at = own[:, layout.answers]
            of_pair = in_its_pair(chunk.batch.targets, jnp.asarray(chunk.weights))
            normed += np.asarray(
                neurons_normed(c, params, *neurons, at, whole, projected, of_pair), np.float64
            )
        progress()
    counts = stacked.any(-1).sum(1)
    mean = (attends / counts[None, :, None]).astype(np.float32)
    return Whole(
        attends={name: mean[:, i] for i, name in enumerate(kinds)},
        normed=(normed / batch.pairs).astype(np.float32),
        activations=activations,
    )


def drivers_of(neurons: Neurons, activations: np.ndarray, most: int) -> list[list[Any]]:
    """The prompts that drive each neuron most, and where in them.

    Args:
      neurons: J of them.
      activations: [J, N, T]; NaN beyond a prompt's end.
      most: prompts of each.

    Returns:
      [layer, neuron, [[prompt, position, activation], …]]; by size, whatever the sign.
    """
    found = []
    for layer, neuron, values in zip(*neurons, activations, strict=True):
        sizes = np.nan_to_num(np.abs(values), nan=-1.0)
        places, best = sizes.argmax(1), sizes.max(1)
        rows = np.argsort(-best, kind="stable")[:most]
        each = [[int(r), int(places[r]), float(values[r, places[r]])] for r in rows]
        found.append([int(layer), int(neuron), each])
    return found
