"""Docstrings: the parameter that a function's documentation names next.

Reference: the task of Heimersheim and Janiak, "A circuit for Python docstrings in a 4-layer
attention-only transformer" (2023); words and layout are our own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.words import EVENTS, OBJECTS, PARAMETERS, PLACES
from mgnp_jax.types import Tokenizer

TEMPLATE = '''def {name}(self, {a}, {b}, {c}, {d}):
    """{x} of the {y}

    :param {a}: the {u}
    :param {b}: the {v}
    :param'''
"""Two of four parameters are documented; the third comes next."""


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; in the corrupted prompt the last two parameters change places.

    Args:
      rng: consumed.
      tokenizer: parameters must be single tokens of it.

    Yields:
      Pairs scored by the logit difference of these two; right if no parameter of the function is
      likelier than the third.
    """
    parameters = np.array(usable(tokenizer, PARAMETERS, 12, "parameters' names"))
    words = PLACES + OBJECTS + EVENTS
    while True:
        name, a, b, c, d = rng.choice(parameters, 5, replace=False).tolist()
        x, y, u, v = rng.choice(words, 4, replace=False).tolist()

        write = functools.partial(TEMPLATE.format, name=name, a=a, b=b, x=x.title(), y=y, u=u, v=v)
        yield PromptPair(
            clean=write(c=c, d=d),
            corrupted=write(c=d, d=c),
            answers=(f" {c}",),
            wrong_answers=(f" {a}", f" {b}", f" {d}"),
            scores={"score": ((f" {c}",), (f" {d}",))},
            origin="docstring",
        )


DOCSTRING = Task(
    name="docstring", counts=Counts(train=200, validation=200, test=2_000), pairs=pairs
)
