"""Effects of all nodes of a circuit on a split: to first order, exactly where that counts."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.evidence.chunks import FIGURES, Chunk, Progress, Split, figures
from mgnp_jax.evidence.of_edges import EdgeCircuit
from mgnp_jax.evidence.of_nodes import NodeCircuit
from mgnp_jax.evidence.reading import read_clean
from mgnp_jax.evidence.removal import strongest, together
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.metrics.evaluate import check_logits
from mgnp_jax.metrics.per_prompt import PerPrompt, collect
from mgnp_jax.metrics.scores import answered
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns, both_runs, plain_runs
from mgnp_jax.passes.caching import cache_logits
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.types import Batch, Params

Found = dict[str, dict[str, np.ndarray]]
"""`score`, `kl` and `exact` by granularity, see `Evidence.removal`."""


class Effects(NamedTuple):
    """What was found.

    Attributes:
      removal: see `Evidence`.
      addition: see `Evidence`.
      lens: of `model` and `circuit`, see `Evidence`.
      direct: mean over pairs, see `writes.direct`.
      scores: see `Evidence`.
      logits: [P, V] of the first prompts, of `model`, `circuit`, and model on `corrupted` ones.
    """

    removal: Found
    addition: Found
    lens: dict[str, dict[str, np.ndarray]]
    direct: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]
    logits: dict[str, np.ndarray]


def effects_of(
    circuit: NodeCircuit | EdgeCircuit,
    split: Split,
    neurons: int,
    examples: int,
    progress: Progress,
) -> Effects:
    """Effects of leaving the circuit and of joining the empty one.

    Args:
      circuit: of which level it may be.
      split: N prompts.
      neurons: how many of the neurons are measured exactly.
      examples: P, of how many prompts logits are wanted.
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
    means, logits = _exactly(circuit, split, leaving, joining, examples, progress)
    found = means["circuit"]
    wanted = {name: kept[name] | (name in coarse) for name in GRANULARITIES}
    return Effects(
        removal=_joined(found["removal"], removal, kept),
        addition=_joined(found["addition"], found["joining"], wanted),
        lens={of: _float32(means[of]["lens"]) for of in ("model", "circuit")},
        direct=_float32(means["model"]["direct"]),
        scores=jax.tree.map(float, means["scores"]),
        logits=logits,
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
    return {name: sums[name] / split.batch.pairs for name in NEURONS}


def _exactly(
    circuit: NodeCircuit | EdgeCircuit,
    split: Split,
    leaving: dict[str, np.ndarray],
    joining: dict[str, np.ndarray],
    examples: int,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Means over prompts of what the clean run and passes on the circuit say; some logits."""
    model = circuit.model
    chunks, sizes = split.chunks()
    # All heads and blocks of a layer.
    alone = model.config.heads + 2
    out, into = list(together(leaving, split.load.nodes)), list(together(joining, alone))
    progress.total += len(chunks) * (len(out) + len(into))
    sums: dict[str, Any] = {}
    shown: list[dict[str, np.ndarray]] = []
    decided: list[tuple[PerPrompt, int]] = []
    for chunk in chunks:
        runs, clean = both_runs(
            *(model.config, model.params, chunk.batch, sizes), ablation_values=split.constants
        )
        read = jax.device_get(read_clean(model, runs, clean, chunk.weights))
        del clean
        found = circuit.exact(runs, chunk.weights, out, into, progress)
        base, other = np.asarray(runs.base_logits), _corrupted_logits(model, split, chunk, runs)
        logits = {"model": base, "circuit": found.pop("logits"), "corrupted": other}
        both = {name: _scores(model, chunk, runs, each) for name, each in logits.items()}
        scores = {name: each for name, (each, _) in both.items()}
        decided.append(({"correct": {n: each for n, (_, each) in both.items()}}, chunk.real))
        sums = _plus(sums, {"model": read, "circuit": found, "scores": scores})
        some = max(min(examples - int(chunk.rows[0]), chunk.real), 0)
        shown.append({name: each[:some] for name, each in logits.items()})
    means = jax.tree.map(lambda leaf: leaf / split.batch.pairs, sums)
    for name, right in collect(decided, split.batch)["correct"].items():
        means["scores"][name] = {"accuracy": right.mean(), **means["scores"][name]}
    return means, jax.tree.map(lambda *parts: np.concatenate(parts), *shown)


def _corrupted_logits(model: Model, split: Split, chunk: Chunk, runs: CachedRuns) -> np.ndarray:
    """[B, V] of the model on corrupted prompts."""
    if split.constants is None:
        return np.asarray(_read_corrupted(model.config, model.params, runs))
    batch: Batch = chunk.batch.replace(clean=chunk.batch.corrupted)  # type: ignore[attr-defined]
    return cache_logits(model.config, model.params, batch, len(batch))


@functools.partial(jax.jit, static_argnums=0)
def _read_corrupted(model_config: ModelConfig, params: Params, runs: CachedRuns) -> jax.Array:
    """[B, V] of what the corrupted run wrote, where it is kept."""
    answers, (values,) = runs.layout.answers, runs.corrupted.values
    written = (values.attn_out + values.mlp_out)[:, answers].sum(0)
    return unembed(model_config, params, runs.corrupted.embedding[answers] + written)


def _scores(
    model: Model, chunk: Chunk, runs: CachedRuns, logits: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sums of score and KL, and what `answered` has."""
    (score, kl), right = jax.device_get(_outcome(logits, runs))
    check_logits(model, kl, chunk.rows)
    sums = [(value * chunk.weights).sum() for value in (score, kl)]
    return dict(zip(FIGURES, sums, strict=True)), right


@jax.jit
def _outcome(logits: jax.Array, runs: CachedRuns) -> tuple[jax.Array, jax.Array]:
    """Figures [2, B], and what decides whether prompts are answered rightly, as `answered`."""
    return figures(logits, runs), answered(runs.targets.answers, logits)


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
