"""Gendered pronouns: the pronoun that follows a name in a tag question.

Templates are our own, in the shape of the paper's (arXiv 2512.10903, section 5.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair, logit_difference
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.words import BOYS, GIRLS
from mgnp_jax.types import Tokenizer

TEMPLATES = (
    "Well, {name} is such a good neighbor, isn't",
    "I think {name} is a wonderful cook, isn't",
    "Yes, {name} was a brilliant teacher, wasn't",
    "You know, {name} is a very patient listener, isn't",
    "After all, {name} is the best runner here, isn't",
    "And {name} was really late today, wasn't",
)


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt has a name of the other gender.

    Args:
      rng: consumed.
      tokenizer: names and pronouns must be single tokens of it.

    Yields:
      Pairs with the logit difference of the two pronouns as score.
    """
    names = {
        " she": usable(tokenizer, GIRLS, 10, "girls' names"),
        " he": usable(tokenizer, BOYS, 10, "boys' names"),
    }
    while True:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        right, wrong = rng.permutation(list(names)).tolist()
        clean, corrupted = rng.choice(names[right]), rng.choice(names[wrong])
        yield PromptPair(
            clean=template.format(name=clean),
            corrupted=template.format(name=corrupted),
            answers={"score": logit_difference([right], [wrong])},
            origin="gp",
        )


GENDERED_PRONOUNS = Task(
    name="gp",
    counts=Counts(train=150, validation=150, test=378),
    kind="logits",
    pairs=pairs,
)
