"""Answers as text → arrays: which tokens are right, which wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mgnp_jax.tasks.metrics import logit_difference, metric_named
from mgnp_jax.types import AnswerMetric, Answers, MgnpError, Score, Targets

AnswerSets = tuple[Sequence[str], Sequence[str]]
"""Right and wrong answers."""

SINGLE, FIRST, WHOLE = ANSWER = ("single", "first", "whole")
"""What is scored of an answer: it must be one token; or its first token is; or all of them."""


def check_answer(answer: str, metric: str | AnswerMetric) -> None:
    """Refuses what cannot be scored of an answer.

    Args:
      answer: one of `ANSWER`.
      metric: how scores are read from answers, or its name.

    Raises:
      MgnpError: for another name of either; and for whole answers with a metric that is not the
        difference of means, the only one that is a sum over the tokens of answers.
    """
    if answer not in ANSWER:
        raise MgnpError(f"answer must be one of {', '.join(ANSWER)}, got {answer!r}")
    if metric_named(metric) is not logit_difference and answer == WHOLE:
        raise MgnpError(
            f"answer {WHOLE!r} is scored by the mean log-probability of right answers less that of "
            f"wrong ones, got the metric {getattr(metric, '__name__', metric)!r}; leave it as it "
            f"is ({logit_difference.__name__}), or take answer {FIRST!r}"
        )


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of unequal length as one int32 array, 0 where they have ended.

    Args:
      rows: at least one.
    """
    out = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def encode_targets(
    ids: Mapping[str, Sequence[int]],
    sets: Sequence[Mapping[str, AnswerSets]],
    kl_over: Sequence[Mapping[str, Sequence[str]]],
    metric: AnswerMetric,
) -> Targets:
    """The answers of N prompts.

    Args:
      ids: token ids of every answer.
      sets: of each prompt, right and wrong answers by name: `"answers"`, which decide accuracy,
        and those of every score.
      kl_over: of each prompt, answers by name of the KL that is taken over them.
      metric: how scores are read.
    """
    scores = {
        name: Score(answers=encode_answers(ids, [each[name] for each in sets]), metric=metric)
        for name in sets[0]
        if name != "answers"
    }
    return Targets(
        answers=encode_answers(ids, [each["answers"] for each in sets]),
        scores=scores,
        kl_over={
            name: padded([[ids[text][0] for text in each[name]] for each in kl_over])
            for name in kl_over[0]
        },
    )


def encode_answers(ids: Mapping[str, Sequence[int]], rows: Sequence[AnswerSets]) -> Answers:
    """Tokens and signs of right and wrong answers; a token that is given twice counts once.

    Args:
      ids: token ids of every answer.
      rows: of each prompt.
    """
    # Many rows share their lists, which are then written out once.
    place: dict[tuple[int, int], int] = {}
    distinct: list[AnswerSets] = []
    for right, wrong in rows:
        if (id(right), id(wrong)) not in place:
            place[id(right), id(wrong)] = len(distinct)
            distinct.append((right, wrong))
    signed = [
        {ids[text][0]: 1.0 for text in right} | {ids[text][0]: -1.0 for text in wrong}
        for right, wrong in distinct
    ]
    signs = np.zeros((len(signed), max(map(len, signed))), np.float32)
    for i, row in enumerate(signed):
        signs[i, : len(row)] = list(row.values())
    tokens = padded([[*row] for row in signed])
    which = np.array([place[id(right), id(wrong)] for right, wrong in rows])
    return Answers(tokens=tokens[which], signs=signs[which])
