"""Greater-than: a span of years must end later than it began.

Reference: arXiv 2305.00586 for the task; templates and nouns are our own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair, is_single_token, token_ids
from mgnp_jax.tasks.task import Counts, Task, usable
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
STARTS = range(2, 99)
WINDOW = 10
"""Equation 9 counts only years more than this far from the start."""


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt starts in the century's year 01.

    Args:
      rng: consumed.
      tokenizer: must have the hundred two-digit numbers as tokens.

    Yields:
      Pairs scored by equation 9 (`score`) and by Σ P(y > start) − Σ P(y < start)
      (`prob_diff`).

    Raises:
      MgnpError: if the tokenizer splits years otherwise.
    """
    digits = [f"{year:02d}" for year in range(100)]
    if not all(is_single_token(tokenizer, pair) for pair in digits):
        raise MgnpError(
            "greater-than is scored on the last two digits of a year, which must be one token "
            "('43' of 1743); this tokenizer splits them. Use a model with such a tokenizer "
            "(gpt2-mini, gpt2), or bring your own prompts with --data FILE"
        )
    events = usable(tokenizer, EVENTS, 10, "events")

    def in_two(century: int, year: int) -> bool:
        """Whether " 1743" is " 17" and "43", as the answer's position assumes."""
        parts = token_ids(tokenizer, f" {century}") + token_ids(tokenizer, digits[year])
        whole = token_ids(tokenizer, f" {century}{digits[year]}")
        return len(parts) == 2 and whole == parts

    years = [
        (century, start)
        for century in CENTURIES
        for start in STARTS
        if in_two(century, start) and in_two(century, 1)
    ]
    if not years:
        raise MgnpError(
            "greater-than: this tokenizer writes no year from 1102 to 2198 as century and "
            "two digits; bring your own prompts with --data FILE"
        )

    def prompt(template: str, event: str, century: int, start: int) -> str:
        year = f"{century}{digits[start]}"
        return template.format(event=event, year=year, century=century)

    while True:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        event = str(rng.choice(events))
        century, start = years[rng.integers(len(years))]

        def later(gap: int, start: int = start) -> dict[str, float]:
            after = dict.fromkeys(digits[start + gap + 1 :], 1.0)
            return after | dict.fromkeys(digits[: max(0, start - gap)], -1.0)

        yield PromptPair(
            clean=prompt(template, event, century, start),
            corrupted=prompt(template, event, century, 1),
            answers={"score": later(WINDOW), "prob_diff": later(0)},
            origin="gt",
        )


GREATER_THAN = Task(
    name="gt",
    counts=Counts(train=150, validation=150, test=12_240),
    kind="probabilities",
    # Equation 9 leaves nothing to win for starts in the nineties; the exact sums do.
    judge="prob_diff",
    pairs=pairs,
)
