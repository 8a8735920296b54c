"""Where heads look: kinds of positions from the last token, and whole patterns on examples."""

from __future__ import annotations

import numpy as np

from mgnp_jax.evidence.chunks import Split
from mgnp_jax.masks.levels import NODE, level_of
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.spans import packed_tokens, spans_of
from mgnp_jax.passes.whole_prompts import circuit_patterns, plain_patterns
from mgnp_jax.types import Batch, Masks

PATTERN_BYTES = 2**26
"""About the most that patterns come to."""


def kinds_of_positions(batch: Batch) -> dict[str, np.ndarray]:
    """Which positions a head may be seen to look at, by what stands there.

    Args:
      batch: N prompts.

    Returns:
      [N, T] bool: where a right answer stands (`to_answer`), or a wrong one (`to_wrong_answer`), a
      token that occurs more than once before the last one (`to_repeated`), the first token
      (`to_first`), and the one before the last (`to_previous`); only kinds that occur.
    """
    real, tokens = np.asarray(batch.attention_mask, bool), np.asarray(batch.clean)
    answers = batch.targets.answers
    last = real.sum(1) - 1
    places = np.arange(tokens.shape[1])[None]
    before = real & (places < last[:, None])
    same = (tokens[:, :, None] == tokens[:, None, :]) & before[:, None, :]
    told, signs = np.asarray(answers.tokens), np.asarray(answers.signs)
    among = tokens[:, :, None] == told[:, None, :]
    found = {
        "to_answer": (among & (signs > 0)[:, None]).any(-1) & before,
        "to_wrong_answer": (among & (signs < 0)[:, None]).any(-1) & before,
        "to_repeated": (same.sum(-1) > 1) & before,
        "to_first": real & (places == 0),
        "to_previous": real & (places == last[:, None] - 1),
    }
    return {name: kind for name, kind in found.items() if kind.any()}


def strongest_heads(sizes: np.ndarray, most: int, prompts: int, length: int) -> np.ndarray:
    """The heads whose patterns are kept.

    Args:
      sizes: [L, H] effects; NaN for heads that are not kept.
      most: how many at most.
      prompts: P.
      length: T.

    Returns:
      [heads, 2] int, layer and head, in order.
    """
    fits = max(PATTERN_BYTES // (3 * prompts * length**2), 1)
    strength = np.nan_to_num(np.abs(sizes), nan=-1.0).ravel()
    order = np.argsort(-strength, kind="stable")[: min(most, fits)]
    order = np.sort(order[strength[order] >= 0])
    return np.stack(np.unravel_index(order, sizes.shape), -1)


def patterns_of(
    model: Model, masks: Masks, examples: Split, heads: np.ndarray
) -> dict[str, np.ndarray]:
    """Attention of some heads on whole prompts.

    Args:
      model: the model.
      masks: bool, of the circuit.
      examples: P prompts.
      heads: [heads, 2] as `strongest_heads` found them.

    Returns:
      Of the `clean` and `corrupted` run, and inside the `circuit` if it is one of nodes: uint8
      [P, heads, T, T], 255 is 1; rows read from columns, 0 beyond a prompt's end.
    """
    c, params, count = model.config, model.params, len(heads)
    names = ("clean", "corrupted", *(("circuit",) if level_of(masks) is NODE else ()))
    prompts, length = np.shape(examples.batch.clean)
    found = {name: np.zeros((prompts, count, length, length), np.uint8) for name in names}
    slots = np.full((c.layers, c.heads), count, np.int32)
    slots[tuple(heads.T)] = np.arange(count)
    gates = {name: np.asarray(mask, np.float32) for name, mask in masks.items()}
    spans, (chunks, sizes) = (
        spans_of(examples.batch, share_prefix=False),
        examples.chunks(whole=True),
    )
    for chunk in chunks if count else ():
        layout = spans.layout(chunk.rows, sizes)
        each = [
            plain_patterns(c, params, tokens, layout, slots, count)
            for tokens in packed_tokens(chunk.batch, layout)
        ]
        if level_of(masks) is NODE:
            runs = plain_runs(
                *(c, params, chunk.batch, sizes),
                share_prefix=False,
                ablation_values=examples.constants,
            )
            each.append(circuit_patterns(c, params, gates, runs, slots, count))
        for name, pattern in zip(names, each, strict=True):
            real = np.asarray(chunk.batch.attention_mask, bool)[:, None, :, None]
            seen = np.where(real, np.asarray(pattern).swapaxes(0, 1), 0)
            found[name][chunk.rows[: chunk.real]] = seen[: chunk.real]
    return found
