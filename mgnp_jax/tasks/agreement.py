"""Subject–verb agreement: the verb has the number of its subject, whatever stands between.

Reference: the task of arXiv 1611.01368; in circuit discovery arXiv 2403.19647 (simple, and across
a prepositional phrase). Frames and words are our own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable_rows
from mgnp_jax.tasks.words import NEARBY, PEOPLE
from mgnp_jax.types import Tokenizer

FRAMES = (
    "The {noun}",
    "My {noun}",
    "Today the {noun}",
    "They say that the {noun}",
    "I think the {noun}",
    "Everyone knows that the {noun}",
    "It seems that the {noun}",
    "We heard that the {noun}",
    "In the end the {noun}",
    "She told us that the {noun}",
)

PHRASES = tuple(
    f"{start} {{noun}} {preposition} the {{other}}"
    for start in ("The", "They say that the", "I think the")
    for preposition in ("near", "behind", "beside", "with", "in front of")
)

VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
"""Of one and of several; several, so that one fits whatever the model would go on with."""


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt has the subject in the other number.

    Args:
      rng: consumed.
      tokenizer: both forms of nouns must be single tokens of it.

    Yields:
      Pairs scored by the mean logit of verbs that agree less that of verbs that do not.
    """
    people = usable_rows(tokenizer, PEOPLE, 10, "people's nouns in both numbers")
    verbs = _verbs(tokenizer)
    while True:
        frame = FRAMES[rng.integers(len(FRAMES))]
        yield _pair(frame, people[rng.integers(len(people))], verbs, int(rng.integers(2)), "")


def phrase_pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """`pairs` with a phrase between subject and verb, whose noun has either number.

    Args:
      rng: consumed.
      tokenizer: both forms of nouns must be single tokens of it.

    Yields:
      Pairs scored in the same way; half of the phrases' nouns have the other number than the verb.
    """
    people = usable_rows(tokenizer, PEOPLE, 10, "people's nouns in both numbers")
    verbs = _verbs(tokenizer)
    nearby = usable_rows(tokenizer, NEARBY, 5, "things' nouns in both numbers")
    while True:
        frame = PHRASES[rng.integers(len(PHRASES))]
        noun = people[rng.integers(len(people))]
        other = nearby[rng.integers(len(nearby))][rng.integers(2)]
        yield _pair(frame, noun, verbs, int(rng.integers(2)), other)


def _verbs(tokenizer: Tokenizer) -> list[tuple[str, ...]]:
    """The verbs of one, and of several, as answers."""
    rows = usable_rows(tokenizer, VERBS, 1, "verbs in both numbers")
    return [tuple(f" {verb}" for verb in form) for form in zip(*rows)]


def _pair(
    frame: str, noun: tuple[str, ...], verbs: list[tuple[str, ...]], number: int, other: str
) -> PromptPair:
    """One pair; `number` is 0 for one, 1 for several."""
    return PromptPair(
        clean=frame.format(noun=noun[number], other=other),
        corrupted=frame.format(noun=noun[1 - number], other=other),
        answers=verbs[number],
        wrong_answers=verbs[1 - number],
        origin="sva",
    )


AGREEMENT = Task(name="sva", counts=Counts(train=150, validation=150, test=400), pairs=pairs)

ACROSS_PHRASE = Task(
    name="sva-phrase", counts=Counts(train=200, validation=200, test=2_000), pairs=phrase_pairs
)
"""The same across a prepositional phrase."""
