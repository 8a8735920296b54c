"""Effects of all nodes of a circuit on a split: to first order, exactly where that counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.evidence.chunks import FIGURES, Chunk, Load, Progress, figures
from mgnp_jax.evidence.of_edges import EdgeCircuit
from mgnp_jax.evidence.of_nodes import NodeCircuit
from mgnp_jax.evidence.reading import read_clean
from mgnp_jax.evidence.removal import strongest, together
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.metrics.evaluate import check_logits
from mgnp_jax.metrics.scores import answered_rightly
from mgnp_jax.passes.budget import PLAIN
from mgnp_jax.passes.cached_runs import CachedRuns, both_runs, plain_runs
from mgnp_jax.passes.caching import cache_logits
from mgnp_jax.passes.spans import Sizes, spans_of
from mgnp_jax.types import AblationValues, Batch

ALONE_AT_ONCE = 16
"""Most nodes that are kept alone in one pass, whose cost is the unembedding."""

Found = dict[str, dict[str, np.ndarray]]
"""`score`, `kl` and `exact` by granularity, see `Evidence.removal`."""


class Effects(NamedTuple):
    """What was found.

    Attributes:
      removal: see `Evidence`.
      addition: see `Evidence`.
      lens: of `model` and `circuit`, see `Evidence`.
      direct: mean over prompts, see `writes.direct`.
      scores: see `Evidence`.
    """

    removal: Found
    addition: Found
    lens: dict[str, dict[str, np.ndarray]]
    direct: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]


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

    def chunks(self, *, gradient: bool = False) -> tuple[list[Chunk], Sizes]:
        """Prompts that go together, and the sizes of their arrays.

        Args:
          gradient: whether gradients are taken.
        """
        chunks = list(self.load.chunks(self.batch, gradient=gradient))
        spans = spans_of(self.batch, share_prefix=self.constants is None)
        return chunks, spans.sizes(chunk.rows for chunk in chunks)


def effects_of(
    circuit: NodeCircuit | EdgeCircuit, split: Split, neurons: int, progress: Progress
) -> Effects:
    """Effects of leaving the circuit and of joining the empty one.

    Args:
      circuit: of which level it may be.
      split: N prompts.
      neurons: how many of the neurons are measured exactly.
      progress: counts passes.
    """
    kept = {name: circuit.nodes[name] for name in GRANULARITIES}
    coarse = [name for name in GRANULARITIES if name not in NEURONS]
    leaving = {name: kept[name] for name in coarse}
    joining = {name: np.ones_like(kept[name]) for name in coarse}
    removal: dict[str, np.ndarray] = {}
    if isinstance(circuit, NodeCircuit):
        removal = _to_first_order(circuit, split, progress)
        sized = {name: np.where(kept[name], removal[name][0], np.nan) for name in NEURONS}
        chosen = strongest(sized, NEURONS, neurons)
        leaving, joining = leaving | chosen, joining | chosen
    means = _exactly(circuit, split, leaving, joining, progress)
    found = means["circuit"]
    wanted = {name: kept[name] | (name in coarse) for name in GRANULARITIES}
    return Effects(
        removal=_joined(found["removal"], removal, kept),
        addition=_joined(found["addition"], found["joining"], wanted),
        lens={of: _float32(means[of]["lens"]) for of in ("model", "circuit")},
        direct=_float32(means["model"]["direct"]),
        scores=jax.tree.map(float, means["scores"]),
    )


def _to_first_order(
    circuit: NodeCircuit, split: Split, progress: Progress
) -> dict[str, np.ndarray]:
    """What neurons that leave change, [2, …] by granularity."""
    model = circuit.model
    chunks, sizes = split.chunks(gradient=True)
    progress.total += len(chunks)
    sums: dict[str, Any] = {}
    for chunk in chunks:
        runs = plain_runs(
            *(model.config, model.params, chunk.batch, sizes), ablation_values=split.constants
        )
        sums = _plus(sums, circuit.leaving(runs, chunk.weights))
        progress()
    return {name: sums[name] / len(split.batch) for name in NEURONS}


def _exactly(
    circuit: NodeCircuit | EdgeCircuit,
    split: Split,
    leaving: dict[str, np.ndarray],
    joining: dict[str, np.ndarray],
    progress: Progress,
) -> dict[str, Any]:
    """Means over prompts of what the clean run and passes on the circuit say."""
    model = circuit.model
    chunks, sizes = split.chunks()
    room = split.load.bytes // (4 * PLAIN * len(chunks[0].rows) * model.config.vocab_size)
    # All heads and blocks of a layer, where there is room.
    alone = int(min(max(room, 1), ALONE_AT_ONCE, model.config.heads + 2))
    out, into = list(together(leaving, split.load.nodes)), list(together(joining, alone))
    progress.total += len(chunks) * (len(out) + len(into))
    sums: dict[str, Any] = {}
    for chunk in chunks:
        runs, clean = both_runs(
            *(model.config, model.params, chunk.batch, sizes), ablation_values=split.constants
        )
        read = jax.device_get(read_clean(model, runs, clean, chunk.weights))
        del clean
        found = circuit.exact(runs, chunk.weights, out, into, progress)
        scores = _scores(circuit, chunk, runs, found.pop("logits"))
        sums = _plus(sums, {"model": read, "circuit": found, "scores": scores})
    return jax.tree.map(lambda leaf: leaf / len(split.batch), sums)


def _scores(
    circuit: NodeCircuit | EdgeCircuit, chunk: Chunk, runs: CachedRuns, logits: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Sums of score, KL and accuracy of model, circuit, and model on corrupted prompts."""
    model = circuit.model
    swapped: Batch = chunk.batch.replace(clean=chunk.batch.corrupted)  # type: ignore[attr-defined]
    other = cache_logits(model.config, model.params, swapped, len(swapped))
    by_name = {"model": runs.base_logits, "circuit": logits, "corrupted": other}
    found = {}
    for name, each in by_name.items():
        (score, kl), right = jax.device_get(_outcome(each, runs))
        check_logits(model, kl, chunk.rows)
        sums = [(value * chunk.weights).sum() for value in (score, kl, right)]
        found[name] = dict(zip((*FIGURES, "accuracy"), sums, strict=True))
    return found


@jax.jit
def _outcome(logits: jax.Array, runs: CachedRuns) -> tuple[jax.Array, jax.Array]:
    """Figures [2, B], and whether prompts are answered rightly [B]."""
    return figures(logits, runs), answered_rightly(runs.targets.answers, logits)


def _joined(
    exact: dict[str, np.ndarray], roughly: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> Found:
    """Exact effects where there are any, else those to first order, of wanted nodes."""
    found: Found = {}
    for name, leaf in exact.items():
        known = ~np.isnan(leaf[0])
        both = np.where(known[None], leaf, roughly.get(name, np.nan))
        both = np.where(wanted[name][None], both, np.nan).astype(np.float32)
        figures = dict(zip(FIGURES, both, strict=True))
        found[name] = {**figures, "exact": known & wanted[name]}
    return found


def _plus(sums: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Sums in float64 with what else was found."""
    more = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), more)
    return jax.tree.map(np.add, sums, more) if sums else more


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)
