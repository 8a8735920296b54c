"""Greater-than: a span of years must end later than it began.

Reference: arXiv 2305.00586 for the task; templates and nouns are our own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mgnp_jax.tasks.answers import AnswerSets
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.tokens import is_single_token, token_ids
from mgnp_jax.tasks.words import EVENTS
from mgnp_jax.types import MgnpError, Tokenizer

TEMPLATES = (
    "The {event} went on from {year} until {century}",
    "They say the {event} began in {year} and was over by {century}",
    "Historians date the {event} from the year {year} to the year {century}",
    "It opened with a {event} in {year} and closed with another in {century}",
    "Between {year} and its end there was a {event}, which stopped only in {century}",
)

CENTURIES = range(11, 22)
DIGITS = tuple(f"{year:02d}" for year in range(100))
STARTS = range(2, 99)
TENS_STARTS = range(10, 90)
"""With tens digit 0 every end year is later, with 9 hardly any digit is wrong or right."""
WINDOW = 10
"""Equation 9 counts only years more than this far from the start."""


class Scored(NamedTuple):
    """What a start year makes of its end years, in the words of `PromptPair`."""

    answers: Sequence[str]
    wrong_answers: Sequence[str]
    scores: dict[str, AnswerSets]
    kl_over: dict[str, tuple[str, ...]]


@functools.cache
def two_digits(start: int) -> Scored:
    """For tokenizers with the hundred two-digit numbers: the end year's last two digits.

    Args:
      start: last two digits of the start year.

    Returns:
      Later years are right, earlier ones wrong: their probabilities are `prob_diff`. `score` is
      equation 9, which leaves out those near the start. `kl_years` is over all hundred.
    """

    def beyond(gap: int) -> AnswerSets:
        return DIGITS[start + gap + 1 :], DIGITS[: max(0, start - gap)]

    # Equation 9 leaves nothing to win for starts in the nineties; the exact sums do.
    right, wrong = beyond(0)
    return Scored(
        right, wrong, {"score": beyond(WINDOW), "prob_diff": (right, wrong)}, {"kl_years": DIGITS}
    )


@functools.cache
def tens_digit(start: int) -> Scored:
    """For tokenizers that split numbers into digits: the end year's tens digit.

    Half of the probability stays on the start's own digit, with which the year may still be
    a later one, so it counts as right.

    Args:
      start: last two digits of the start year.

    Returns:
      Digits from the start's on are right, smaller ones wrong: P − P is `score`, and by its own
      name `tens_prob_diff`. `kl_tens` is over the ten digits.
    """
    digits, first = tuple("0123456789"), start // 10
    right, wrong = digits[first:], digits[:first]
    return Scored(right, wrong, {"tens_prob_diff": (right, wrong)}, {"kl_tens": digits})


def pairs(
    rng: np.random.Generator, tokenizer: Tokenizer, corruption: str = "01"
) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt starts in another year of the century.

    Args:
      rng: consumed.
      tokenizer: must have the hundred two-digit numbers, or the ten digits, as tokens.
      corruption: `"01"` for the century's year 01, `"other"` for any other year.

    Yields:
      Pairs scored by `two_digits` or `tens_digit`.

    Raises:
      MgnpError: if the tokenizer splits years otherwise.
    """
    events = usable(tokenizer, EVENTS, 10, "events")
    whole = all(is_single_token(tokenizer, pair) for pair in DIGITS)
    scored, starts = (two_digits, STARTS) if whole else (tens_digit, TENS_STARTS)
    years = _usable_years(tokenizer, starts, 1 if whole else 2)
    all_years = [(century, start) for century, found in years.items() for start in found]

    def prompt(template: str, event: str, century: int, start: int) -> str:
        year = f"{century}{DIGITS[start]}"
        return template.format(event=event, year=year, century=century)

    while True:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        event = events[rng.integers(len(events))]
        century, start = all_years[rng.integers(len(all_years))]
        other = 1
        if corruption == "other":
            other = int(rng.choice([year for year in years[century] if year != start]))
        yield PromptPair(
            clean=prompt(template, event, century, start),
            corrupted=prompt(template, event, century, other),
            origin="gt",
            **scored(start)._asdict(),
        )


def _usable_years(tokenizer: Tokenizer, starts: range, tokens: int) -> dict[int, list[int]]:
    """Start years by century that are written as the answer's position assumes.

    Args:
      tokenizer: the model's.
      starts: last two digits of the years to try.
      tokens: that " 1743" must have beyond those of " 17".

    Raises:
      MgnpError: if there are none.
    """

    def as_assumed(century: int, year: int) -> bool:
        rest = token_ids(tokenizer, DIGITS[year])
        parts = token_ids(tokenizer, f" {century}") + rest
        return len(rest) == tokens and parts == token_ids(tokenizer, f" {century}{DIGITS[year]}")

    years = {
        century: [start for start in starts if as_assumed(century, start)]
        for century in CENTURIES
        if as_assumed(century, 1)
    }
    years = {century: found for century, found in years.items() if len(found) > 1}
    if not years:
        raise MgnpError(
            "greater-than is scored on the last two digits of a year, or on its tens digit; this "
            "tokenizer writes no year from 1102 to 2198 as a century and two digits, together or "
            "one by one. Use a model with such a tokenizer (gpt2-mini, gpt2, smollm2-135m), or "
            "bring your own prompts with --data FILE"
        )
    return years


GREATER_THAN = Task(
    name="gt",
    counts=Counts(train=150, validation=150, test=12_240),
    pairs=pairs,
    metric="probability_difference",
)

OTHER_YEAR = dataclasses.replace(
    GREATER_THAN, name="gt-other", pairs=functools.partial(pairs, corruption="other")
)
"""The same, corrupted by another start year of the century, as in the paper's own example."""
