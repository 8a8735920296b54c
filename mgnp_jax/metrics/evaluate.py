"""How faithful a binary circuit is on a split, beside the full model on the same prompts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import as_bool, check_masks
from mgnp_jax.metrics.extent import extent
from mgnp_jax.metrics.scores import kl_divergence, kl_over, read, same_top_token
from mgnp_jax.metrics.streams import Streams, chunk_rows, masked_logits, run_streams
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.models.segments import Segment
from mgnp_jax.types import Batch, Masks, MgnpError, Params, StandIn, checksum

PerPrompt = dict[str, Any]


@functools.partial(jax.jit, static_argnums=0)
def per_prompt(
    config: ModelConfig,
    params: Params,
    masks: Masks | Sequence[Masks],
    streams: Streams,
    segments: Sequence[Segment] | None = None,
) -> PerPrompt:
    """Every metric, prompt by prompt.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity; for each segment, if there are any.
      streams: B prompts with their plain passes.
      segments: the layers without nodes closed for good; None for the whole model.

    Returns:
      `kl` [B], under `kl_over` those over some tokens, `exact_match` [B], `correct` a pair
      [B], [B] of full model and circuit, and under `scores` such a pair for each readout.
    """
    logits = masked_logits(config, params, masks, streams, segments=segments)
    fine = jnp.promote_types(logits.dtype, jnp.float32)
    base, logits = streams.base_logits.astype(fine), logits.astype(fine)
    scores = {
        name: (read(readout, base), read(readout, logits))
        for name, readout in streams.readouts.items()
    }
    of_base, of_circuit = scores[streams.judge]
    return {
        "kl": kl_divergence(base, logits),
        "kl_over": {n: kl_over(c, base, logits) for n, c in streams.choices.items()},
        "exact_match": same_top_token(base, logits),
        "correct": (of_base > 0, of_circuit > 0),
        "scores": scores,
    }


def summarise(rows: PerPrompt, keep: np.ndarray | None = None) -> dict[str, Any]:
    """Means over prompts.

    Args:
      rows: as `per_prompt` returns them, [N] each.
      keep: [N] bool, prompts to count; None for all.

    Returns:
      `prompts`, the circuit's `score`, `accuracy`, `kl`, `exact_match`, `score_gap` (mean
      |circuit − full model| over mean |full model|), and the full model's `base_score` and
      `base_accuracy`; KLs over some tokens and other readouts under their own names, with
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


def collect(pieces: list[tuple[PerPrompt, int]]) -> PerPrompt:
    """Joins per-prompt results of pieces, leaving out the rows that only filled them up.

    Args:
      pieces: results and how many of their rows are real.
    """
    real = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], rows) for rows, n in pieces]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *real)


def evaluate(
    model: Model,
    circuit: Circuit | Masks,
    batch: Batch,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda prompts: None,
) -> dict[str, Any]:
    """Measures a binary circuit on a split.

    Args:
      model: the model the circuit is of.
      circuit: a circuit, or binary masks by granularity; of bare masks, pruned nodes are given
        the corrupted run's values.
      batch: N held-out prompts.
      batch_size: prompts a piece; changes memory and time, not the figures.
      on_progress: called with the number of prompts done since the last call.

    Returns:
      What `summarise` returns, over all prompts; the same over the prompts that the full
      model answers rightly under `answered`.

    Raises:
      MgnpError: if the masks do not fit the model or are not binary, or a prompt is longer
        than the model's context.
    """
    found = evaluate_all(
        model, {"circuit": circuit}, batch, batch_size=batch_size, on_progress=on_progress
    )
    return found["circuit"]


def evaluate_all(
    model: Model,
    circuits: Mapping[str, Circuit | Masks],
    batch: Batch,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda prompts: None,
) -> dict[str, dict[str, Any]]:
    """`evaluate` for several circuits; the plain passes, which they share, run once.

    Args:
      model: the model the circuits are of.
      circuits: circuits, or binary masks by granularity, by name. Pruned nodes of all are
        given what the circuits among them were found with.
      batch: N held-out prompts.
      batch_size: prompts a piece; changes memory and time, not the figures.
      on_progress: called with the number of prompts done since the last call.

    Returns:
      What `evaluate` returns, for each.

    Raises:
      MgnpError: as `evaluate` does.
    """
    constants = _stand_in_of(circuits)
    masks: dict[str, Masks] = {}
    for name, circuit in circuits.items():
        given = circuit.masks if isinstance(circuit, Circuit) else circuit
        check_masks(model.config, given, f"the masks of {name!r}")
        masks[name] = as_bool(given)
    check_prompts(model.config, batch)
    pieces: dict[str, list[tuple[PerPrompt, int]]] = {name: [] for name in masks}
    chunks = list(chunk_rows(len(batch), batch_size))
    where = extent(batch, share_prefix=constants is None)
    sizes = where.sizes(rows for rows, _ in chunks)
    for chosen, real in chunks:
        streams = run_streams(
            model.config, model.params, batch.take(chosen), sizes, stand_in=constants
        )
        for name, each in masks.items():
            rows = jax.device_get(per_prompt(model.config, model.params, each, streams))
            pieces[name].append((rows, real))
        on_progress(real)
    results = {}
    for name, parts in pieces.items():
        rows = collect(parts)
        results[name] = summarise(rows) | {"answered": summarise(rows, rows["correct"][0])}
    return results


def _stand_in_of(circuits: Mapping[str, Circuit | Masks]) -> StandIn | None:
    found = [c.stand_in for c in circuits.values() if isinstance(c, Circuit)]
    if any(checksum(one or {}) != checksum(found[0] or {}) for one in found):
        raise MgnpError(
            f"the circuits {', '.join(circuits)} were found with different values for pruned "
            "nodes (ablation); measure them one by one"
        )
    return found[0] if found else None


def check_prompts(config: ModelConfig, batch: Batch) -> None:
    """Refuses prompts that the model cannot take.

    Args:
      config: the model's shape.
      batch: prompts.

    Raises:
      MgnpError: if there are none, they are too long, or have ids beyond the vocabulary.
    """
    if not len(batch):
        raise MgnpError("the split has no prompts; wanted at least one")
    if batch.clean.shape[1] > config.context:
        raise MgnpError(
            f"the longest prompt has {batch.clean.shape[1]} tokens, the model's context is "
            f"{config.context}; shorten the prompts"
        )
    largest = int(max(batch.clean.max(), batch.corrupted.max()))
    if largest >= config.vocab_size:
        raise MgnpError(
            f"prompts have token id {largest}, the model's vocabulary ends at "
            f"{config.vocab_size - 1}; they were made with another model's tokenizer"
        )
