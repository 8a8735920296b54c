"""Prompts altered so that a circuit of the task should, or should not, do well on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mgnp_jax.tasks.answers import FIRST, WHOLE
from mgnp_jax.tasks.data import TaskData
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Task
from mgnp_jax.types import Batch, MgnpError, Tokenizer


def freshly_corrupted(task: Task, tokenizer: Tokenizer) -> Task | None:
    """The same clean prompts in the same order, each with another corrupted one.

    Args:
      task: as it is.
      tokenizer: decides which words can be used.

    Returns:
      The task; None if it knows no further corrupted prompts.
    """

    def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
        for pair in task.pairs(rng, tokenizer):
            for text in pair.more_corrupted(1):
                yield dataclasses.replace(pair, corrupted=text)

    first = next(task.pairs(np.random.default_rng(0), tokenizer), None)
    known = first is not None and list(first.more_corrupted(1))
    return dataclasses.replace(task, pairs=pairs) if known else None


def _groups(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """[C] a pair of each clean prompt, [N] which clean prompt each row has."""
    _, first, of = np.unique(
        np.asarray(batch.openings().clean), axis=0, return_index=True, return_inverse=True
    )
    return first, of.reshape(-1)[batch.pair_of_row]


def with_answers_of_others(data: TaskData, seed: int) -> TaskData:
    """Every clean prompt with the answers of another, so that they do not follow from it.

    What the model does with the prompts stays the same: a search that matches the model, and not
    the answers, finds what it finds without this.

    Args:
      data: N prompts a split.
      seed: of the permutations.

    Raises:
      MgnpError: for whole answers, with which prompts are run that end in them.
    """
    check_movable(data.answer)
    rng = np.random.default_rng(seed)

    def shuffled(batch: Batch) -> Batch:
        first, of = _groups(batch)
        # Once around a random circle, so that none keeps its own.
        circle = rng.permutation(len(first))
        other = np.empty_like(circle)
        other[circle] = np.roll(circle, 1)
        moved: Any = batch.take(first[other[of]])
        return batch.replace(targets=moved.targets)  # type: ignore[attr-defined]

    splits = {name: shuffled(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, source="", **splits)


def check_movable(answer: str) -> None:
    """Refuses answers that prompts cannot have of others.

    Args:
      answer: what is scored of them.

    Raises:
      MgnpError: for whole ones.
    """
    if answer == WHOLE:
        raise MgnpError(
            "controls repeat the search with the answers of other prompts, and that is not done "
            f"for answer {WHOLE!r}, whose prompts are run with their own behind them; take "
            f"{FIRST!r}, or leave the controls out"
        )


def half_of(data: TaskData, which: int) -> TaskData:
    """Every other clean training prompt, with all its corrupted ones; other splits as they are.

    Args:
      data: N training prompts.
      which: 0 or 1; the two halves share no clean prompt.
    """
    _, of = _groups(data.train)
    return dataclasses.replace(
        data, source="", train=data.train.take(np.flatnonzero(of % 2 == which))
    )
