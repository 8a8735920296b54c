"""How many prompts and nodes go together in the memory there is, and how far it all is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.metrics.scores import in_its_pair, kl_divergence, score
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.budget import COMPILING, PLAIN, budget_of, kept_floats, plain_bytes, step_bytes
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.spans import Sizes, Spans, spans_of
from mgnp_jax.passes.storage import gib
from mgnp_jax.types import AblationValues, Batch, Record

FIGURES = ("score", "kl")
"""What effects are measured on, in the order of `figures`."""

PROMPTS_AT_ONCE = 64
"""Most prompts of a pass: products of matrices gain nothing from more."""

READ_AT_ONCE = 8
"""Nodes whose logits are read together: the unembedding is most of what many of them cost."""

NODES_AT_ONCE = 16
"""Nodes of one pass where an accelerator has room; on CPUs, one after another is faster."""


def figures(logits: jax.Array, runs: CachedRuns) -> jax.Array:
    """Score, and KL(full model ‖ circuit) in nats, row by row; a pair's are sums over its rows.

    Args:
      logits: [B, V] of a circuit.
      runs: of the prompts.

    Returns:
      [2, B], as `FIGURES` names them.
    """
    own = score(runs.targets.scores["score"], logits)
    kl = kl_divergence(runs.base_logits, logits)
    return jnp.stack([own, in_its_pair(runs.targets, kl)])


class FullModel(NamedTuple):
    """What the KL of many circuits on the same prompts has in common.

    Attributes:
      probabilities: [B, V] of the full model.
      entropy: [B] of it in nats.
    """

    probabilities: jax.Array
    entropy: jax.Array

    @classmethod
    def of(cls, runs: CachedRuns) -> FullModel:
        """That of some prompts.

        Args:
          runs: B prompts with their plain passes.
        """
        return cls(*_full_model(runs.base_logits))

    def figures(self, logits: jax.Array, runs: CachedRuns) -> jax.Array:
        """As `figures` finds them, with one exponential a logit instead of two.

        Args:
          logits: [B, V] of a circuit.
          runs: of the prompts.
        """
        own = score(runs.targets.scores["score"], logits)
        # KL = Σ p (log p − log q), and log q = logits less their logarithmic sum; shifted, or the
        # difference of two large sums would be left.
        logits = logits - logits.max(-1, keepdims=True)
        cross = jax.nn.logsumexp(logits, -1) - (self.probabilities * logits).sum(-1)
        return jnp.stack([own, in_its_pair(runs.targets, cross - self.entropy)])


@jax.jit
def _full_model(base_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    base = jax.nn.log_softmax(base_logits)
    probabilities = jnp.exp(base)
    return probabilities, -(probabilities * base).sum(-1)


class Chunk(NamedTuple):
    """Some prompts that go together.

    Attributes:
      rows: [B] which of all.
      batch: they.
      weights: [B] float32, 0 for those that only fill the chunk up.
      real: how many are not.
    """

    rows: np.ndarray
    batch: Batch
    weights: np.ndarray
    real: int


class Load(NamedTuple):
    """How much goes together.

    Attributes:
      bytes: that a pass may take, weights and programs aside.
      prompts: of a pass with its gradient.
      forward: prompts of a pass without, in which weights are read for as many as can be.
      nodes: of such a pass.
    """

    bytes: int
    prompts: int
    forward: int
    nodes: int

    def chunks(self, batch: Batch, *, gradient: bool = False) -> Iterator[Chunk]:
        """Cuts prompts into chunks of one size.

        Args:
          batch: N prompts.
          gradient: whether gradients are taken.
        """
        # As even as can be, so that few prompts run twice to fill the last chunk up.
        count = -(-len(batch) // (self.prompts if gradient else self.forward))
        for rows, real in chunk_rows(len(batch), -(-len(batch) // count)):
            weights = (np.arange(len(rows)) < real).astype(np.float32)
            yield Chunk(rows, batch.take(rows), weights, real)

    def __str__(self) -> str:
        """As a person reads it."""
        return (
            f"evidence may take {gib(self.bytes)} beside the model; {self.forward} prompts go "
            f"together, {self.prompts} where gradients are taken"
        )


def load_of(model: Model, batch: Batch, spans: Spans, memory_gib: float | None) -> Load:
    """Divides the memory there is; the result changes no figure but by rounding.

    Args:
      model: the model.
      batch: N prompts.
      spans: of them.
      memory_gib: most that the process may take; None for the default of `Execution`.
    """
    c, longest = model.config, batch.clean.shape[1]
    one = spans.sizes([np.array([row]) for row in range(len(batch))])
    execution = Execution(memory_gib=memory_gib, compact=False)
    budget = budget_of(execution, c, model.params, one, 1, longest)
    plain = plain_bytes(c, one, 1, longest)
    # The circuit's stream, values of the whole model and of what is left of it, logits.
    inner = c.layers * one.tokens * c.width + 2 * kept_floats(c, one.tokens)
    forward = plain + 4 * (inner + READ_AT_ONCE * PLAIN * c.vocab_size)
    room = max(budget.total - budget.taken - COMPILING, 0)

    def at_once(each: int, most: int) -> int:
        return int(min(max(room // each, 1), most))

    most = min(PROMPTS_AT_ONCE, len(batch))
    prompts = at_once(plain + step_bytes(c, one, 1), most)
    run = at_once(forward, most)
    nodes = 1 if jax.default_backend() == "cpu" else at_once(run * forward, NODES_AT_ONCE)
    return Load(bytes=room, prompts=prompts, forward=run, nodes=nodes)


class Split(NamedTuple):
    """Prompts as they are run.

    Attributes:
      batch: N of them.
      load: how much goes together.
      constants: that pruned nodes are given; None for the corrupted run's values.
    """

    batch: Batch
    load: Load
    constants: AblationValues | None

    def chunks(self, *, gradient: bool = False, whole: bool = False) -> tuple[list[Chunk], Sizes]:
        """Prompts that go together, and the sizes of their arrays.

        Args:
          gradient: whether gradients are taken.
          whole: whether prompts are run from their first token, in a grid as wide as the batch.
        """
        chunks = list(self.load.chunks(self.batch, gradient=gradient))
        spans = spans_of(self.batch, share_prefix=not whole and self.constants is None)
        sizes = spans.sizes(chunk.rows for chunk in chunks)
        return chunks, sizes._replace(positions=self.batch.clean.shape[1]) if whole else sizes

    def examples(self, count: int) -> Split:
        """The first prompts, as wide as the longest of them.

        Args:
          count: how many.
        """
        some = self.batch.take(slice(count))
        longest = int(np.asarray(some.attention_mask).sum(1).max())
        cut = {n: getattr(some, n)[:, :longest] for n in ("clean", "corrupted", "attention_mask")}
        return self._replace(batch=some.replace(**cut))  # type: ignore[attr-defined]


class Progress:
    """Counts passes and says how far they are."""

    def __init__(self, total: int, on_record: Callable[[Record], None]) -> None:
        """Prepares to count.

        Args:
          total: how many passes there will be.
          on_record: told of each.
        """
        self.total, self._done, self._on_record = total, 0, on_record

    def __call__(self, passes: int = 1) -> None:
        """Says that passes are done.

        Args:
          passes: how many.
        """
        self._done += passes
        self._on_record({"passing": True, "step": self._done, "of": self.total})
