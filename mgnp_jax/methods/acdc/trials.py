"""What removing the next edges costs, several removals at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.edges import writer_count
from mgnp_jax.methods.acdc.order import Order, by_kind
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.budget import PLAIN, attention_bytes
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.edge_forward import WholeRun, edge_logits_after, whole_run
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.spans import Spans, spans_of
from mgnp_jax.types import Batch, Params

PROMPTS_AT_ONCE = 32
"""Most prompts of one pass."""


class Hardware(NamedTuple):
    """What is worth while on a kind of device.

    Attributes:
      trials: removals that are tried at once.
      bytes: about the most that a pass takes; for one removal on one prompt, if that takes more.
    """

    trials: int
    bytes: int


CPU, ACCELERATOR = Hardware(1, 2**30), Hardware(16, 2**33)
"""On two CPU cores four removals tried together took three times as long as one after another; a
GPU has room for more."""


class Part(NamedTuple):
    """Some of the prompts.

    Attributes:
      runs: their plain passes.
      whole: the pass in which all edges are kept.
      real: how many of them count; the others only fill the last part.
    """

    runs: CachedRuns
    whole: WholeRun
    real: int


class Trials(NamedTuple):
    """What is needed to try removals.

    Attributes:
      model: the model.
      effect_on: which of `FIGURES` is to be kept high.
      order: of the edges.
      parts: the prompts.
      pairs: how many count.
      at_once: removals of one pass.
    """

    model: Model
    effect_on: str
    order: Order
    parts: tuple[Part, ...]
    pairs: int
    at_once: int

    def losses(self, kept: np.ndarray, begin: int, stops: list[int]) -> np.ndarray:
        """What the figure falls short of zero by, for circuits that lose more and more edges.

        Args:
          kept: [all] bool; every edge from `begin` on is.
          begin: place in the order of the first edge that is removed.
          stops: place of the last one, of each circuit; ascending, no more than `at_once`.

        Returns:
          Float64, mean over pairs, of each circuit.
        """
        layer = int(self.order.layers[min(stops[-1], len(self.order.layers) - 1)])
        first = min(layer, self.model.config.layers - 1)
        filled = np.array(stops + stops[-1:] * (self.at_once - len(stops)), np.int32)
        total = np.zeros(self.at_once)
        for part in self.parts:
            found = _figures(
                *(self.model.config, FIGURES[self.effect_on], self.model.params),
                *(kept, self.order.ranks, np.int32(begin), filled, part.runs, part.whole),
                np.int32(first),
            )
            total -= np.asarray(found, np.float64)[:, : part.real].sum(1)
        return total[: len(stops)] / self.pairs

    def said(self, loss: float) -> dict[str, float]:
        """A loss by its name, with the sign that it has by that name.

        Args:
          loss: of `losses`.
        """
        return {self.effect_on: loss if self.effect_on == "kl" else -loss}


def trials_of(
    model: Model, batch: Batch, effect_on: str, order: Order, at_once: int | None
) -> Trials:
    """Runs the plain passes.

    Args:
      model: the model.
      batch: N prompts.
      effect_on: which of `FIGURES` is to be kept high.
      order: of the edges.
      at_once: removals of one pass; None for what suits the device.
    """
    c, spans = model.config, spans_of(batch)
    hardware = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    each = _bytes(c, spans)
    size = int(min(max(hardware.bytes // each, 1), PROMPTS_AT_ONCE, len(batch)))
    if at_once is None:
        at_once = int(min(max(hardware.bytes // (size * each), 1), hardware.trials))
    chunks = list(chunk_rows(len(batch), size))
    sizes = spans.sizes(rows for rows, _ in chunks)
    parts = []
    for rows, real in chunks:
        runs = plain_runs(c, model.params, batch.take(rows), sizes)
        parts.append(Part(runs, whole_run(c, model.params, runs), real))
    return Trials(model, effect_on, order, tuple(parts), batch.pairs, at_once)


def _bytes(c: ModelConfig, spans: Spans) -> int:
    """About what one circuit takes on one prompt: writers' buffer, a layer's readers, logits."""
    longest = int((spans.lengths - spans.starts).max())
    edges = c.width * (2 * writer_count(c) + 4 * (c.heads + 2 * c.kv_heads + 1))
    inner = PLAIN * (c.heads * c.head_width + c.mlp_width + c.width)
    attention = attention_bytes(c, 1, int(spans.lengths.max()))
    return 4 * (longest * (edges + inner) + PLAIN * c.vocab_size) + attention


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def _figures(
    model_config: ModelConfig,
    figure: Figure,
    params: Params,
    kept: jax.Array,
    ranks: jax.Array,
    begin: jax.Array,
    stops: jax.Array,
    runs: CachedRuns,
    whole: WholeRun,
    first: jax.Array,
) -> jax.Array:
    """[J, B] the figure of each circuit, which loses the edges from `begin` to its stop."""

    def without(stop: jax.Array) -> jax.Array:
        row = kept & ~((ranks >= begin) & (ranks <= stop))
        masks = by_kind(model_config, row.astype(jnp.float32))
        return figure(edge_logits_after(model_config, params, masks, runs, whole, first), runs)

    return jax.vmap(without)(stops)
