"""Effects of the nodes of a circuit of nodes, chunk by chunk: to first order, then exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence import addition
from mgnp_jax.evidence.chunks import READ_AT_ONCE, FullModel, Progress
from mgnp_jax.evidence.lens import logit_lens
from mgnp_jax.evidence.removal import Nodes, Smaller, first_order, smaller, without
from mgnp_jax.masks.granularities import mask_shapes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.layer_by_layer import apart, changed_from, streams_apart
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Masks, Params

Sums = dict[str, Any]
"""What was found, summed over prompts: NumPy arrays by name, nested."""


class NodeCircuit:
    """A circuit of nodes, as evidence is gathered of it."""

    def __init__(self, model: Model, masks: Masks) -> None:
        """Leaves out of the model what the circuit does not use.

        Args:
          model: the model.
          masks: bool arrays by granularity, consistent with the hierarchy.
        """
        self.model, self.nodes = model, {n: np.asarray(mask, bool) for n, mask in masks.items()}
        self._circuit: Smaller = smaller(model, masks)
        self._apart = apart(model.config, model.params, masks)

    def leaving(self, runs: CachedRuns, weights: np.ndarray) -> Sums:
        """What nodes that leave change to first order, in one pass for all.

        Args:
          runs: B prompts.
          weights: [B] of them.

        Returns:
          [2, …] by granularity.
        """
        c, small = self.model.config, self._circuit.of(self.model.config, runs)
        return jax.device_get(first_order(c, self.model.params, self._circuit, small, weights))

    def exact(
        self,
        runs: CachedRuns,
        weights: np.ndarray,
        leaving: Sequence[Nodes],
        joining: Sequence[Nodes],
        progress: Progress,
    ) -> Sums:
        """Takes nodes out of the circuit, and puts them into the empty one, one by one.

        Args:
          runs: B prompts.
          weights: [B] of them.
          leaving: nodes of the circuit.
          joining: any nodes.
          progress: counts passes.

        Returns:
          `removal` and `addition` [2, …] by granularity, NaN where nothing was tried; `joining`,
          neurons to first order; the circuit's `lens`; and, no sum, its `logits` [B, V].
        """
        c, params = self.model.config, self.model.params
        prompts = self._apart.prompts(c, runs)
        streams = streams_apart(c, params, self._apart, prompts)
        logits = _logits_of(c, params, streams[-1])
        masks = self._apart.masks
        removal, joined = nothing_tried(c), nothing_tried(c)

        def left(nodes: Nodes) -> jax.Array:
            changed = without(masks, nodes)
            return changed_from(c, self._apart, prompts, streams, nodes.layer, changed)

        change = Change(self.model, runs, weights, progress)
        change.measure(leaving, left, streams[-1], removal)
        at_answers = prompts.at_answers(streams)
        lens = logit_lens(c, params, at_answers, runs.targets, weights)
        empty = addition.nothing_kept(c, params, self._circuit.masks, runs)
        gradient = addition.empty_gradients(c, params, empty, runs)
        roughly = addition.first_order(c, params, empty, gradient * weights[None, :, None])
        change.measure(
            joining, lambda nodes: addition.alone(c, params, empty, nodes), empty.residual, joined
        )
        found = {"removal": removal, "addition": joined, "joining": roughly, "lens": lens}
        return jax.device_get({**found, "logits": logits})


def nothing_tried(model_config: ModelConfig) -> dict[str, np.ndarray]:
    """[2, …] NaN by granularity.

    Args:
      model_config: the model's shape.
    """
    return {n: np.full((2, *shape), np.nan) for n, shape in mask_shapes(model_config).items()}


class Change(NamedTuple):
    """Measures what nodes change, on some prompts.

    Attributes:
      model: the model.
      runs: B prompts.
      weights: [B] of them.
      progress: counts nodes that go together.
    """

    model: Model
    runs: CachedRuns
    weights: np.ndarray
    progress: Progress

    def measure(
        self,
        groups: Sequence[Nodes],
        residual: Callable[[Nodes], jax.Array],
        unchanged: jax.Array,
        into: dict[str, np.ndarray],
    ) -> None:
        """Reads logits from streams that nodes have changed, of several groups together.

        Args:
          groups: of nodes.
          residual: nodes → [J, B, D] after the last layer, at the answer position.
          unchanged: [B, D] the stream that none has changed.
          into: [2, …] by granularity, where the change goes, summed over prompts.
        """
        c, params, waiting = self.model.config, self.model.params, []
        full = FullModel.of(self.runs)
        repeated = jnp.broadcast_to(unchanged[None], (READ_AT_ONCE, *unchanged.shape))
        base = np.asarray(_figures_of(c, params, repeated, full, self.runs))[0]
        for i, nodes in enumerate(groups):
            found = residual(nodes)
            waiting += [(*of, found[k]) for k, of in enumerate(zip(nodes.names, nodes.places))]
            self.progress()
            last = i == len(groups) - 1
            while len(waiting) >= READ_AT_ONCE or (last and waiting):
                names, places, rows = zip(*waiting[:READ_AT_ONCE])
                waiting = waiting[READ_AT_ONCE:]
                filled = jnp.stack(rows + rows[:1] * (READ_AT_ONCE - len(rows)))
                read = _figures_of(c, params, filled, full, self.runs)
                put(into, names, places, np.asarray(read), base, self.weights)


def put(
    into: dict[str, np.ndarray],
    names: Sequence[str],
    places: Sequence[tuple[int, ...]],
    found: Any,
    base: Any,
    weights: np.ndarray,
) -> None:
    """Writes down what nodes change.

    Args:
      into: [2, …] by granularity.
      names: of the nodes' granularities.
      places: their indices.
      found: [≥ nodes, 2, B] figures with the change.
      base: [2, B] without it.
      weights: [B] of the prompts.
    """
    change = np.asarray(found, np.float64) - np.asarray(base, np.float64)[None]
    # A figure of a prompt that only fills up may be anything.
    summed = np.where(weights > 0, change, 0).sum(-1)
    for name, place, value in zip(names, places, summed):
        into[name][(slice(None), *place)] = value


@functools.partial(jax.jit, static_argnums=0)
@exact
def _figures_of(
    model_config: ModelConfig,
    params: Params,
    residual: jax.Array,
    full: FullModel,
    runs: CachedRuns,
) -> jax.Array:
    """[R, 2, B] read from residual streams [R, B, D] after the last layer."""
    logits = unembed(model_config, params, residual)
    return jax.vmap(full.figures, in_axes=(0, None))(logits, runs)


_logits_of = jax.jit(unembed, static_argnums=0)
