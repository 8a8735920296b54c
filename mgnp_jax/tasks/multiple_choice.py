"""Multiple choice: the label of the color that was said.

Reference: the task of arXiv 2504.13151 (MIB's copycolors) with four choices; wording and words are
our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.words import COLORED, COLORS
from mgnp_jax.types import Tokenizer

LABELS = ("A", "B", "C", "D")

TEMPLATE = """The {thing} is {color}.
Question: What color is the {thing}?
{choices}
Answer:"""


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; in the corrupted prompt the right label is swapped with another.

    The colors stay where they are, so that place and color say nothing of which label is right.

    Args:
      rng: consumed.
      tokenizer: labels and colors must be single tokens of it.

    Yields:
      Pairs scored by the logit difference of the two labels; right if no label is likelier.
    """
    usable(tokenizer, LABELS, len(LABELS), "labels")
    colors = np.array(usable(tokenizer, COLORS, 6, "colors"))
    things = usable(tokenizer, COLORED, 5, "things")
    while True:
        thing = things[rng.integers(len(things))]
        chosen = rng.choice(colors, len(LABELS), replace=False).tolist()
        right, other = rng.choice(len(LABELS), 2, replace=False).tolist()
        moved = list(LABELS)
        moved[right], moved[other] = moved[other], moved[right]
        answers = [f" {label}" for label in LABELS]
        yield PromptPair(
            clean=prompt(thing, chosen[right], LABELS, chosen),
            corrupted=prompt(thing, chosen[right], moved, chosen),
            answers=(answers[right],),
            wrong_answers=[text for text in answers if text != answers[right]],
            scores={"score": ((answers[right],), (answers[other],))},
            origin="mcqa",
        )


def prompt(thing: str, color: str, labels: Sequence[str], colors: Sequence[str]) -> str:
    """Writes one prompt.

    Args:
      thing: that has the color.
      color: of it.
      labels: of the choices, in the order in which these stand.
      colors: the choices.

    Returns:
      The prompt, up to the answer.
    """
    choices = "\n".join(f"{label}. {text}" for label, text in zip(labels, colors, strict=True))
    return TEMPLATE.format(thing=thing, color=color, choices=choices)


MULTIPLE_CHOICE = Task(
    name="mcqa", counts=Counts(train=200, validation=200, test=2_000), pairs=pairs
)
