"""Every figure of a binary circuit, row by row and pair by pair, and their means."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.metrics.scores import (
    answered,
    kl_divergence,
    kl_over,
    same_top_token,
    score,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.mesh import on_host
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import Batch, Masks, MgnpError, Params, Record

PerPrompt = dict[str, Any]


@functools.partial(jax.jit, static_argnums=0)
def per_prompt(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    runs: CachedRuns,
    compaction: Compaction | None = None,
) -> PerPrompt:
    """Every metric, row by row.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates of nodes or edges.
      runs: B prompts with their plain passes.
      compaction: what is left of the model; None for all of it.

    Returns:
      `kl` [B], under `kl_over` those over some tokens, `exact_match` [B], `correct` two of full
      model and circuit as `answered` has them, and under `scores` two [B] for each score.
    """
    logits = circuit_logits(model_config, params, masks, runs, compaction)
    fine = jnp.promote_types(logits.dtype, jnp.float32)
    base, logits = runs.base_logits.astype(fine), logits.astype(fine)
    targets = runs.targets
    return {
        "kl": kl_divergence(base, logits),
        "kl_over": {name: kl_over(t, base, logits) for name, t in targets.kl_over.items()},
        "exact_match": same_top_token(base, logits),
        "correct": tuple(answered(targets.answers, of) for of in (base, logits)),
        "scores": {
            name: (score(target, base), score(target, logits))
            for name, target in targets.scores.items()
        },
    }


def summarise(rows: PerPrompt, keep: np.ndarray | None = None) -> Record:
    """Means over pairs.

    Args:
      rows: as `by_pair` returns them, [P] each.
      keep: [P] bool, pairs to count; None for all.

    Returns:
      `prompts`, the circuit's `score`, `accuracy`, `kl`, `exact_match`, `score_gap` (mean
      |circuit − full model| over mean |full model|), and the full model's `base_score` and
      `base_accuracy`; KLs over some tokens and other scores under their own names, with
      `base_` for the model.
    """
    keep = np.ones(len(rows["kl"]), bool) if keep is None else keep
    if not keep.any():
        return {"prompts": 0}

    def mean(values: Any) -> float:
        return float(np.asarray(values, np.float64)[keep].mean())

    base, circuit = rows["scores"]["score"]
    base_correct, correct = rows["correct"]
    result = {
        "prompts": int(keep.sum()),
        "accuracy": mean(correct),
        "base_accuracy": mean(base_correct),
        "kl": mean(rows["kl"]),
        "exact_match": mean(rows["exact_match"]),
        "score_gap": mean(np.abs(circuit - base)) / max(mean(np.abs(base)), 1e-12),
    }
    result |= {name: mean(values) for name, values in rows["kl_over"].items()}
    for name, (of_model, of_circuit) in rows["scores"].items():
        result |= {name: mean(of_circuit), f"base_{name}": mean(of_model)}
    return result


def collect(chunks: list[tuple[PerPrompt, int]], batch: Batch) -> PerPrompt:
    """Joins results of chunks pair by pair, leaving out the rows that only filled them up.

    Args:
      chunks: results and how many of their rows are real.
      batch: N rows, those of all chunks in order.
    """
    real = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], rows) for rows, n in chunks]
    return by_pair(jax.tree.map(lambda *leaves: np.concatenate(leaves), *real), batch)


def by_pair(rows: PerPrompt, batch: Batch) -> PerPrompt:
    """Figures of pairs from those of the rows at which their whole answers are read.

    Args:
      rows: as `per_prompt` returns them, or some of it, [N] each.
      batch: N rows; where each is a pair, nothing changes.

    Returns:
      [P] each: `scores` are sums over a pair's rows, `correct` whether its best right answer has a
      higher log-probability than its best wrong one, all else the mean over its rows.

    Raises:
      MgnpError: if pairs lack some of their rows, or have them twice.
    """
    if batch.pair is None:
        return rows
    of, signs = batch.pair_of_row, np.asarray(batch.openings().targets.answers.signs)
    # 1 of each pair: all of its parts, and its first row.
    parts = np.stack([np.bincount(of, part) for part in np.asarray(batch.targets.of_pair).T])
    cut = ~np.isclose(parts, 1).all(0)
    if cut.any():
        raise MgnpError(
            f"{many(int(cut.sum()), 'pair')} of {batch.pairs:,} lack some of the rows in which "
            "whole answers are read, or have them twice; select pairs with Batch.of_pairs"
        )

    def summed(values: Any) -> np.ndarray:
        values = np.asarray(values, np.float64)
        total = np.zeros((len(signs), *values.shape[1:]))
        np.add.at(total, of, values)
        return total

    def right(log_probabilities: Any) -> np.ndarray:
        # A pair's first row has a token of every answer, and with it all signs.
        total = summed(log_probabilities)
        best = [np.where(side, total, -np.inf).max(-1) for side in (signs > 0, signs < 0)]
        return best[0] > best[1]

    each = {"scores": summed, "correct": right}
    sizes = np.bincount(of)
    return {
        name: jax.tree.map(each.get(name, lambda values: summed(values) / sizes), values)
        for name, values in rows.items()
    }


def measure(split: SplitRuns, masks: Masks, size: int) -> Record:
    """Metrics of a binary circuit on a split whose plain passes may be kept.

    Args:
      split: N prompts.
      masks: bool arrays by granularity.
      size: prompts a chunk.

    Returns:
      What `summarise` returns.
    """
    chunks = list(chunk_rows(len(split.batch), size))
    sizes = split.spans.sizes(rows for rows, _ in chunks)
    found = []
    for rows, real in chunks:
        runs = split.rows(rows, sizes)
        result = per_prompt(split.model_config, split.params, masks, runs, split.compaction)
        found.append((on_host(result), real))
    return summarise(collect(found, split.batch))
