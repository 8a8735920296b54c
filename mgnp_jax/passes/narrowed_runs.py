"""Prompts with the values of what is left of a model, and as a circuit runs them layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction, narrow_values
from mgnp_jax.passes.packing import Layout, pack


def narrowed_runs(model_config: ModelConfig, left: Compaction, runs: CachedRuns) -> CachedRuns:
    """Prompts with the values of what is left of the model.

    Args:
      model_config: the model's shape.
      left: what is.
      runs: of the whole model.
    """
    if jax.default_backend() == "cpu" and len(runs.corrupted.embedding.devices()) == 1:
        # In NumPy: a program for all layers would take longer to compile than it ever saves.
        narrow = narrow_values(model_config, left.segments, jax.device_get(runs.corrupted))
        corrupted = jax.device_put(narrow)
    else:
        corrupted = _narrow(model_config, left.segments, runs.corrupted)
    return dataclasses.replace(runs, corrupted=corrupted)  # type: ignore[type-var]


_narrow = jax.jit(narrow_values, static_argnums=0)


class Prompts(NamedTuple):
    """Prompts as a circuit runs them layer by layer.

    Attributes:
      runs: K tokens with the values of what is left of each layer; of layers that nothing attends
        in or after, B tokens.
      attending: how many layers, from the first on, run all tokens: to the last that has heads.
      alone: the layout of the answers' tokens, which the others run.
    """

    runs: CachedRuns
    attending: int
    alone: Layout

    @classmethod
    def of(cls, narrow: CachedRuns, attending: int) -> Prompts:
        """Leaves of layers that nothing attends in or after what the answers' tokens need.

        Args:
          narrow: prompts, a segment for each layer.
          attending: layers to the last that has heads.
        """
        answers = np.asarray(narrow.layout.answers)
        values = [
            jax.tree.map(lambda leaf: leaf[:, answers], of) if layer >= attending else of
            for layer, of in enumerate(narrow.corrupted.values)
        ]
        corrupted = dataclasses.replace(narrow.corrupted, values=tuple(values))
        starts = np.asarray(narrow.layout.positions)[answers]
        return cls(
            runs=dataclasses.replace(narrow, corrupted=corrupted),  # type: ignore[type-var]
            attending=attending,
            alone=pack(starts + 1, starts),
        )

    def layout(self, layer: int) -> Layout:
        """Of the tokens that a layer runs.

        Args:
          layer: which.
        """
        return self.runs.layout if layer < self.attending else self.alone

    def entering(self, layer: int, x: jax.Array) -> jax.Array:
        """The stream of the tokens that a layer runs, from that of the layer before.

        Args:
          layer: which; the number of layers for what the logits are read from.
          x: [J, …, D].
        """
        return x[:, self.runs.layout.answers] if layer == self.attending else x

    def at_answers(self, streams: Sequence[jax.Array]) -> jax.Array:
        """[L + 1, B, D] of `streams_apart`.

        Args:
          streams: before each layer and after the last.
        """
        answers = self.runs.layout.answers
        return jnp.stack([x[answers] if i < self.attending else x for i, x in enumerate(streams)])
