"""Whole answers → rows: a pair is read wherever a token of one of its answers is scored.

The log-probability of an answer is Σ_t log P(a_t | prompt, a_<t), so that each of its tokens is
read at the end of a row of its own: the prompts with a_<t behind both. All answers share the first
row, those that begin alike the ones after it, and those of one token need no other.

A pair's score is the sum over its rows, its KL their mean. A search that takes steps draws rows: a
batch has so many of them, whichever pairs they are of, and its losses are means over rows, each
with its own part of the score. What it validates is of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgnp_jax.tasks.metrics import log_probability
from mgnp_jax.types import Answers, Score, Targets

Tokens = tuple[int, ...]

Sides = tuple[Sequence[Tokens], Sequence[Tokens]]
"""Right and wrong answers, each once."""


class Reading(NamedTuple):
    """A row of a pair.

    Attributes:
      number: which pair, from 0.
      begun: what answers have begun with, behind both prompts; nothing in a pair's first row.
      answers: by name as `PromptPair.sets`.
    """

    number: int
    begun: Tokens
    answers: dict[str, Sides]


def readings_of(pairs: Sequence[dict[str, Sides]]) -> list[Reading]:
    """The rows of pairs, those of one together, each beginning once and shorter ones first.

    Args:
      pairs: answers of each by name.
    """
    found = []
    for number, answers in enumerate(pairs):
        every = [answer for sides in answers.values() for side in sides for answer in side]
        begun = {answer[:t] for answer in every for t in range(1, len(answer))}
        found += [
            Reading(number, each, answers)
            for each in ((), *sorted(begun, key=lambda part: (len(part), part)))
        ]
    return found


def targets_of(readings: Sequence[Reading]) -> Targets:
    """What is scored at the end of each row.

    Args:
      readings: N rows.
    """
    names = [name for name in readings[0].answers if name != "answers"]
    numbers = [each.number for each in readings]
    part = 1 / np.bincount(numbers)[numbers]
    first = [not each.begun for each in readings]
    return Targets(
        answers=_answers(readings, "answers", mean=False),
        scores={
            name: Score(answers=_answers(readings, name, mean=True), metric=log_probability)
            for name in names
        },
        of_pair=np.stack([part, first], -1).astype(np.float32),
    )


def _answers(readings: Sequence[Reading], name: str, *, mean: bool) -> Answers:
    """Answer j of a pair in column j of its rows: the token that each scores, and its sign."""
    columns = max(sum(map(len, each.answers[name])) for each in readings)
    tokens = np.zeros((len(readings), columns), np.int32)
    signs = np.zeros((len(readings), columns), np.float32)
    for row, (_, begun, answers) in enumerate(readings):
        right, wrong = answers[name]
        # What each answer counts in a mean.
        sizes = (len(right), len(wrong)) if mean else (1, 1)
        signed = [(answer, 1 / sizes[0]) for answer in right]
        signed += [(answer, -1 / sizes[1]) for answer in wrong]
        t = len(begun)
        for column, (answer, sign) in enumerate(signed):
            if len(answer) > t and answer[:t] == begun:
                tokens[row, column], signs[row, column] = answer[t], sign
    return Answers(tokens=tokens, signs=signs, whole=True)
