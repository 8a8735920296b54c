"""What would make a circuit mean nothing, said before it is searched for and after it is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.levels import NODE, Level
from mgnp_jax.metrics.evaluate import check_logits, check_prompts
from mgnp_jax.metrics.per_prompt import PerPrompt, by_pair
from mgnp_jax.metrics.scores import answered, kl_divergence, score
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.caching import cache_logits, prompts_at_once
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import Answers, Batch

NAMES = {"train": "training"}
"""What people call a split, where that is not its name."""

PROMPTS = 64
"""Enough to tell half from two thirds."""

UNLIKELY = 0.05
"""A count of right answers less likely than this is not chance."""

OVER_CHANCE = 1.1
"""What chance is multiplied by: a model that is hardly better cannot do a task, either."""

SAME_KL, SAME_SCORE = 1e-3, 1e-2
"""Answers are the same up to so many nats, and scores up to that part of the mean score."""

MANY = 0.25
"""Share of the prompts from which on it is said that something is wrong with them."""

FEW = 20
"""A split's prompts below which it says little: the standard error of an accuracy may be 0.11."""

NEARLY_ALL = 0.98
"""Share of the parameters, or of the edges, above which a circuit is called the whole model."""


def check_counts(counts: Mapping[str, int]) -> list[str]:
    """Looks at how many prompts there are, before a circuit is searched for or measured.

    Args:
      counts: clean prompts of each split, by name, as `TaskData.counts` has them.

    Returns:
      A sentence that names the splits with fewer than `FEW`, if there are any.
    """
    few = [many(n, f"{NAMES.get(name, name)} prompt") for name, n in counts.items() if n < FEW]
    if not few:
        return []
    return [
        f"There are only {' and '.join(few)}: a circuit found on so few may be of these alone, "
        f"and figures of so few may be chance; bring {FEW} or more for each split"
    ]


def check_task(model: Model, batch: Batch) -> list[str]:
    """Looks at what the model answers, before a circuit is searched for.

    Args:
      model: the model.
      batch: prompts that were set aside; the first 64 are run.

    Returns:
      Sentences: that the model cannot do the task, that its answers seem to be swapped, that the
      corruption changes nothing, that answers which are scored whole are not equally long.

    Raises:
      MgnpError: for prompts that the model cannot take, and logits that are not numbers.
    """
    check_prompts(model.config, batch)
    some = batch.of_pairs(slice(PROMPTS))
    answers: list[np.ndarray] = []
    at_once = prompts_at_once(model.config, spans_of(some, share_prefix=False))
    for tokens in (some.clean, some.corrupted):
        one = some.replace(clean=tokens)  # type: ignore[attr-defined]
        answers.append(cache_logits(model.config, model.params, one, at_once))
    rows = jax.device_get(_compared(some, *answers))
    check_logits(model, rows["kl"], np.arange(len(some)))
    rows = by_pair(rows, some)
    (right,), kl, (before, after) = rows["correct"], rows["kl"], rows["scores"]
    found = _of_answers(right, some.openings().targets.answers)
    alone = batch.openings()
    differs = (np.asarray(alone.clean) != alone.corrupted) & np.asarray(alone.attention_mask, bool)
    equal = int((~differs.any(1)).sum())
    if equal:
        found.append(
            f"In {equal:,} of {len(alone):,} pairs the corrupted prompt is the clean one, so that "
            "nothing is lost by pruning; give other corrupted prompts"
        )
    found += _of_lengths(batch)
    near = SAME_SCORE * np.abs(before).mean()
    same = (kl < SAME_KL) & (np.abs(before - after) <= near)
    same &= differs[: len(same)].any(1)
    if same.sum() > MANY * len(same):
        found.append(
            f"In {same.sum()} of {len(same)} pairs the model answers the corrupted prompt as it "
            "answers the clean one, so that they say nothing of what the task needs; corrupt the "
            "words that decide the answer"
        )
    return found


@jax.jit
def _compared(batch: Batch, clean: jax.Array, corrupted: jax.Array) -> PerPrompt:
    """As `per_prompt`: KL, whether clean prompts are answered rightly, scores of both."""
    target = batch.targets.scores["score"]
    return {
        "kl": kl_divergence(clean, corrupted),
        "correct": (answered(batch.targets.answers, clean),),
        "scores": (score(target, clean), score(target, corrupted)),
    }


def _of_answers(right: np.ndarray, answers: Answers) -> list[str]:
    """What the number of prompts answered rightly says."""
    signs = np.asarray(answers.signs)
    count, hits = len(right), int(right.sum())
    # Of answers in a random order, the first is a right one.
    chance = float(((signs > 0).sum(1) / np.maximum((signs != 0).sum(1), 1)).mean())
    told = f"The model answers {hits} of {count} prompts rightly, and by chance it would be "
    told += f"{chance:.0%}"
    over = min(OVER_CHANCE * chance, 1.0)
    if _between(0, hits, count, chance) < UNLIKELY:
        return [f"{told}: right and wrong answers may be swapped"]
    if over**count < UNLIKELY <= _between(hits, count, count, over):
        return [
            f"{told}: it hardly does this task, and what is found may be a circuit of something "
            "else; use prompts that it answers, or another model"
        ]
    return []


def _of_lengths(batch: Batch) -> list[str]:
    """That right and wrong answers which are scored whole are not equally long."""
    if batch.pair is None:
        return []
    signs = np.asarray(batch.targets.answers.signs)
    read = np.zeros((batch.pairs, signs.shape[1]))
    np.add.at(read, batch.pair_of_row, signs)
    right, wrong = (np.where(sign * read > 0, np.abs(read), np.nan) for sign in (1, -1))
    shorter = np.nanmean(right, 1) < np.nanmean(wrong, 1)
    longer = np.nanmean(right, 1) > np.nanmean(wrong, 1)
    count = int(shorter.sum() + longer.sum())
    if not count:
        return []
    return [
        f"In {count:,} of {len(read):,} pairs right answers have more or fewer tokens than wrong "
        f"ones ({shorter.sum():,} fewer, {longer.sum():,} more): scored whole, a longer answer is "
        "the less likely whatever it says; bring answers of equal length"
    ]


def _between(least: int, most: int, count: int, chance: float) -> float:
    """Chance of at least so many hits, and at most so many."""
    return sum(
        math.comb(count, k) * chance**k * (1 - chance) ** (count - k)
        for k in range(least, most + 1)
    )


def check_circuit(sizes: Mapping[str, Any], level: Level = NODE) -> list[str]:
    """Looks at how much a circuit keeps.

    Args:
      sizes: as `circuit_sizes` returned them.
      level: of the circuit, which says by what it is large: few edges may go through all nodes.

    Returns:
      Sentences: that it keeps nothing, or nearly everything.
    """
    size = sizes[level.large_by]
    if size.get("prunable_kept", size["active"]) == 0:
        return [
            "Nothing is kept, so this is the model on corrupted prompts; ask for more (--penalty, "
            "--keep)"
        ]
    if size["active"] > NEARLY_ALL * size["total"]:
        return [
            "Hardly anything is pruned, so this is the model rather than a circuit; search longer "
            "(--steps) or ask for less (--penalty, --keep)"
        ]
    return []


def check_controls(controls: Mapping[str, Any]) -> list[str]:
    """Looks at what a circuit is put beside.

    Args:
      controls: figures of `circuit` and of its `complement` on the same prompts.

    Returns:
      A sentence if everything but the circuit is nearer to the model than the circuit is.
    """
    own, rest = (controls[name]["kl"] for name in ("circuit", "complement"))
    if rest >= own:
        return []
    return [
        f"Everything but the circuit is nearer to the model (KL {rest:.3g}) than the circuit "
        f"({own:.3g}), so it is not what does the task; search longer (--steps) or ask for more "
        "(--penalty, --keep)"
    ]
