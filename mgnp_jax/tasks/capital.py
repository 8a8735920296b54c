"""Capitals: the city that is the capital of a country.

Reference: factual recall as in arXiv 2202.05262; frames and list are our own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable_rows
from mgnp_jax.tasks.words import CAPITALS
from mgnp_jax.types import Tokenizer

FRAMES = (
    "The capital of {country} is",
    "The capital city of {country} is",
    "Everyone knows that the capital of {country} is",
    "We flew to the capital of {country}, the city of",
    "The government of {country} has its seat in the city of",
    "She moved to {country} to live in its capital,",
    "As the capital of {country}, people name the city of",
    "On the map of {country}, the capital is marked as",
    "Q: What is the capital of {country}? A: It is",
    "The embassy in {country} is in the capital,",
    "If you travel to {country}, visit its capital,",
    "Most ministers of {country} work in its capital,",
)


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt has another country.

    Splits share countries, not prompts: what is recalled of a country is another fact for each.

    Args:
      rng: consumed.
      tokenizer: countries and capitals must be single tokens of it.

    Yields:
      Pairs scored by the logit difference of the two capitals; right if no other capital is
      likelier.
    """
    known = usable_rows(tokenizer, tuple(CAPITALS.items()), 10, "countries with their capitals")
    cities = [f" {city}" for _, city in known]
    others = {city: tuple(text for text in cities if text != city) for city in cities}
    while True:
        frame = FRAMES[rng.integers(len(FRAMES))]
        here, there = rng.choice(len(known), 2, replace=False).tolist()
        right, wrong = cities[here], cities[there]
        yield PromptPair(
            clean=frame.format(country=known[here][0]),
            corrupted=frame.format(country=known[there][0]),
            answers=(right,),
            wrong_answers=others[right],
            scores={"score": ((right,), (wrong,))},
            origin="capital",
        )


CAPITAL = Task(name="capital", counts=Counts(train=100, validation=100, test=200), pairs=pairs)
