"""Induction: words that come again are followed by what followed them before.

Reference: arXiv 2209.11895 for the task; the words are single tokens of whatever tokenizer, so
that no sentence helps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.words import COLORS, EVENTS, OBJECTS, PLACES
from mgnp_jax.types import Tokenizer

LENGTH = 10
"""Different words that come before those that come again."""
AGAIN = 2
"""So many words come again; one alone is followed by anything as often as by its follower."""


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; in the corrupted prompt two runs of words have changed places.

    The last words are those of the clean prompt, and stood before another one: only where they
    stood says what follows. With other last words instead, nothing before them would differ, and a
    circuit would need no node that looks at the word before.

    Args:
      rng: consumed.
      tokenizer: enough words must be single tokens of it.

    Yields:
      Pairs scored by the logit difference of the two followers; right if no other word of the
      prompt is likelier.
    """
    words = np.array(usable(tokenizer, PLACES + OBJECTS + EVENTS + COLORS, 40, "words"))
    # Both runs have a follower, which is not in the other one.
    starts = [(i, j) for j in range(LENGTH - AGAIN) for i in range(j - AGAIN)]
    while True:
        chosen = rng.choice(words, LENGTH, replace=False).tolist()
        first, second = starts[rng.integers(len(starts))]
        here, there = (first, second) if rng.integers(2) else (second, first)
        moved = list(chosen)
        moved[first : first + AGAIN] = chosen[second : second + AGAIN]
        moved[second : second + AGAIN] = chosen[first : first + AGAIN]
        again = chosen[here : here + AGAIN]
        right, wrong = (f" {chosen[place + AGAIN]}" for place in (here, there))
        yield PromptPair(
            clean="".join(f" {word}" for word in (*chosen, *again)),
            corrupted="".join(f" {word}" for word in (*moved, *again)),
            answers=(right,),
            wrong_answers=[f" {word}" for word in chosen if f" {word}" != right],
            scores={"score": ((right,), (wrong,))},
            origin="induction",
        )


INDUCTION = Task(
    name="induction", counts=Counts(train=200, validation=200, test=2_000), pairs=pairs
)
