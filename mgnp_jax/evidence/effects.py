"""Effects of all nodes of a circuit on a split: to first order, exactly where that counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.evidence.chunks import FIGURES, Chunk, Load, Progress
from mgnp_jax.evidence.of_edges import EdgeCircuit
from mgnp_jax.evidence.of_nodes import NodeCircuit
from mgnp_jax.evidence.reading import read_clean
from mgnp_jax.evidence.removal import strongest, together
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.passes.budget import PLAIN
from mgnp_jax.passes.cached_runs import both_runs, plain_runs
from mgnp_jax.passes.spans import Sizes, spans_of
from mgnp_jax.types import AblationValues, Batch

ALONE_AT_ONCE = 8
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
    """

    removal: Found
    addition: Found
    lens: dict[str, dict[str, np.ndarray]]
    direct: dict[str, np.ndarray]


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
    circuit: NodeCircuit | EdgeCircuit,
    split: Split,
    neurons: int,
    progress: Progress,
) -> Effects:
    """Effects of leaving the circuit and of joining the empty one.

    Args:
      circuit: of which level it may be.
      split: N prompts.
      neurons: how many of the neurons are measured exactly.
      progress: counts passes.
    """
    model, count = circuit.model, len(split.batch)
    chunks, sizes = split.chunks(gradient=True)
    progress.total += len(chunks)
    sums: dict[str, Any] = {}
    for chunk in chunks:
        runs, clean = both_runs(
            model.config,
            model.params,
            chunk.batch,
            sizes,
            ablation_values=split.constants,
        )
        found = {
            "model": read_clean(model, runs, clean, chunk.weights),
            "circuit": circuit.first(runs, chunk.weights),
        }
        sums = _plus(sums, jax.device_get(found))
        del runs, clean
        progress()
    means = jax.tree.map(lambda leaf: leaf / count, sums)
    roughly = {
        name: {n: leaf for n, leaf in means["circuit"].get(name, {}).items() if n in NEURONS}
        for name in ("removal", "addition")
    }
    exact = _exactly(circuit, split, roughly["removal"], neurons, progress)
    exact = jax.tree.map(lambda leaf: leaf / count, exact)
    lens = {of: _float32(means[of]["lens"]) for of in ("model", "circuit")}
    whole = {n: np.ones(m.shape, bool) if n not in NEURONS else m for n, m in _kept(circuit)}
    return Effects(
        removal=_joined(exact["removal"], roughly["removal"], dict(_kept(circuit))),
        addition=_joined(exact["addition"], roughly["addition"], whole),
        lens=lens,
        direct=_float32(means["model"]["direct"]),
    )


def _kept(circuit: NodeCircuit | EdgeCircuit) -> list[tuple[str, np.ndarray]]:
    return [(name, circuit.nodes[name]) for name in GRANULARITIES]


def _exactly(
    circuit: NodeCircuit | EdgeCircuit,
    split: Split,
    roughly: dict[str, np.ndarray],
    neurons: int,
    progress: Progress,
) -> dict[str, Any]:
    """Sums of exact effects [2, …]; NaN where nothing was tried."""
    model, kept = circuit.model, dict(_kept(circuit))
    coarse = [name for name in GRANULARITIES if name not in NEURONS]
    leaving = {name: kept[name] for name in coarse}
    joining = {name: np.ones_like(kept[name]) for name in coarse}
    if roughly and neurons:
        sized = {n: np.where(kept[n], roughly[n][0], np.nan) for n in circuit.neurons}
        chosen = strongest(sized, circuit.neurons, neurons)
        leaving, joining = leaving | chosen, joining | chosen
    chunks, sizes = split.chunks()
    room = split.load.bytes // (4 * PLAIN * len(chunks[0].rows) * model.config.vocab_size)
    alone = int(min(max(room, 1), ALONE_AT_ONCE))
    out = list(together(leaving, split.load.nodes))
    into = list(together(joining, alone))
    progress.total += len(chunks) * (len(out) + len(into))
    sums: dict[str, Any] = {}
    for chunk in chunks:
        runs = plain_runs(
            model.config,
            model.params,
            chunk.batch,
            sizes,
            ablation_values=split.constants,
        )
        sums = _plus(sums, circuit.exact(runs, chunk.weights, out, into, progress))
    return sums


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
