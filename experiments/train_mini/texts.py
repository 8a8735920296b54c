"""What gpt2-mini is trained on: texts of its own with the words of the tasks, without end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.train_mini import frames
from experiments.train_mini.seen import LISTED, has_prompt
from experiments.train_mini.tokenizer import NAMES, THINGS, WORD, said
from mgnp_jax.tasks import agreement, arithmetic, greater_than, multiple_choice, words
from mgnp_jax.tasks.gendered_pronouns import popular_names

Rng = np.random.Generator
PAIRS = {
    operator: tuple(
        (a, b)
        for a in arithmetic.NUMBERS
        for b in arithmetic.NUMBERS
        if a + sign * b in arithmetic.NUMBERS
    )
    for operator, sign in (("+", 1), ("-", -1))
}
"""Numbers whose sum, or difference, has two digits."""


Text = tuple[str, ...]
"""What is told and what follows from it, in turns; only the words of the latter count in full."""


def _length(*parts: str) -> int:
    """How many tokens these parts have."""
    return sum(len(re.findall(WORD, part)) for part in parts)


def _one(rng: Rng, words: Any) -> Any:
    """Any of them."""
    return words[rng.integers(len(words))]


def giving(rng: Rng) -> Text:
    """Who is given something: found by who gives, not by how often or how late one is named."""
    people = a, b = rng.choice(NAMES, 2, replace=False).tolist()
    meeting, ending = _one(rng, frames.GIVING)
    begun = meeting
    if rng.random() < 0.3:
        named = [a] * rng.integers(3) + [b] * rng.integers(3)
        before = (_one(rng, frames.BEFORE).format(name=name) for name in rng.permutation(named))
        begun = "".join((*itertools.islice(before, 2), meeting))
    parts: list[str] = []
    for _ in range(rng.integers(1, 5)):
        giver, other = rng.permutation(people).tolist()
        if rng.random() < 0.25:
            ending = ending.replace("{S}", _one(rng, frames.ASIDE))
        given = rng.random() < 0.6
        if not given:
            ending = ending.removesuffix(" to") + frames.CAME_FROM
        told = (begun + ending).format(
            A=a,
            B=b,
            S=giver,
            other=other,
            object=_one(rng, words.OBJECTS),
            place=_one(rng, words.PLACES),
        )
        if _length(*parts, told) >= LENGTHS[1]:
            break
        parts += told, f" {other if given else giver}"
        begun, ending = "", _one(rng, frames.GIVING_MORE)
    return tuple(parts)


def span(rng: Rng) -> Text:
    """A span of years, which ends later than it began."""
    start = int(_one(rng, greater_than.STARTS))
    century = _one(rng, greater_than.CENTURIES)
    told = _one(rng, frames.SPANS).format(
        event=_one(rng, words.EVENTS), year=f"{century}{start:02d}", century=century
    )
    return (told, _one(rng, greater_than.DIGITS[start + 1 :]))


def pronoun(rng: Rng) -> Text:
    """A tag question or a sentence, and the pronoun of its name."""
    girl = rng.integers(2)
    name = _one(rng, GIRLS if girl else BOYS)
    if rng.random() < 0.6:
        return (_one(rng, frames.TAGS).format(name=name), " she" if girl else " he")
    sentence, he, she = _one(rng, frames.GENDER)
    return (sentence.format(name=name), she if girl else he)


def agree(rng: Rng) -> Text:
    """A subject, sometimes with a phrase, and a verb of its number."""
    number = rng.integers(2)
    told = _one(rng, frames.AGREEMENT if rng.random() < 0.3 else frames.AGREEMENT_PHRASES).format(
        noun=_one(rng, words.PEOPLE)[number], other=_one(rng, words.NEARBY)[rng.integers(2)]
    )
    return (told, f" {_one(rng, agreement.VERBS)[number]}")


def capital(rng: Rng) -> Text:
    """A country and its capital."""
    country, city = _one(rng, tuple(words.CAPITALS.items()))
    return (_one(rng, frames.CAPITALS).format(country=country), f" {city}")


def results(rng: Rng) -> Text:
    """Sums and differences of two numbers, as many as there is room for."""
    parts: list[str] = []
    # Half of the texts ask shortly, so that they have more sums.
    part = 8 if rng.integers(2) else 1
    for _ in range(8):
        operator = _one(rng, "+-")
        a, b = _one(rng, PAIRS[operator])
        asked = frames.SUMS[operator]
        told = ". " * bool(parts) + _one(rng, asked[: len(asked) // part]).format(a=a, b=b)
        if _length(*parts, told) >= LENGTHS[1]:
            break
        parts += told, f" {a + b if operator == '+' else a - b}"
    return tuple(parts)


def again(rng: Rng, among: tuple[str, ...] = LISTED) -> Text:
    """Words in any order, and then the last ones of them, or all, again and again."""
    size = int(rng.integers(3, 17))
    chosen = rng.choice(among, size, replace=False).tolist()
    run = chosen[int(rng.integers(size - 1)) if rng.integers(2) else 0 :]
    rest = (run * 3)[: 42 - size]
    return (
        "".join(f" {word}" for word in (*chosen, rest[0])),
        "".join(f" {word}" for word in rest[1:]),
    )


def again_few(rng: Rng) -> Text:
    """The same of few words, with which it is soon learnt to look for what came before."""
    return again(rng, LISTED[:40])


def choice(rng: Rng) -> Text:
    """A color that is said, and its label among choices."""
    count = int(rng.integers(2, 5))
    labels = rng.permutation(multiple_choice.LABELS)[:count].tolist()
    if rng.random() < 0.5:
        labels = sorted(labels)
    colors = rng.choice(words.COLORS, count, replace=False).tolist()
    right = int(rng.integers(count))
    thing = _one(rng, words.COLORED)
    before, after = frames.CHOICE.format(
        statement=_one(rng, frames.STATEMENTS).format(thing=thing, color=colors[right]),
        question=_one(rng, frames.QUESTIONS).format(thing=thing),
        choices="|",
    ).split("|")
    # Half of the lists say each label again: what has to be known of a color, asked for at once.
    twice = bool(rng.integers(2))
    parts = [before]
    for i, (label, color) in enumerate(zip(labels, colors)):
        parts[-1] += "\n" * bool(i) + f"{label}. {color}"
        parts += [f" {label}", ""] if twice else []
    # What has to be looked for first, asked for by itself in half of the texts.
    if rng.integers(2):
        parts[-1] += after.replace("Answer:", "Color:")
        parts += [f" {colors[right]}", "\nAnswer:"]
    else:
        parts[-1] += after
    return (*parts, f" {labels[right]}")


def documented(rng: Rng) -> Text:
    """A function whose documentation names its parameters in their order."""
    count = int(rng.integers(3, 6))
    name, *parameters = rng.choice(words.PARAMETERS, count + 1, replace=False).tolist()
    done = int(rng.integers(1, 3))
    x, y, *nouns = rng.choice(THINGS, 2 + done, replace=False).tolist()
    told = f"def {name}(self, {', '.join(parameters)}):\n"
    told += f'    """{x.title()} {_one(rng, frames.SUMMARY)} {y}\n\n'
    lines = (f"    :param {p}: the {noun}\n" for p, noun in zip(parameters, nouns))
    return (told + "".join(lines) + "    :param", f" {parameters[done]}")


SHORT: dict[Callable[[Rng], Text], int] = {span: 8, pronoun: 5, agree: 4, capital: 5}
"""Kinds of short texts, and about how many of a hundred of all are of each."""
LONG: dict[Callable[[Rng], Text], int] = {
    giving: 22,
    again: 6,
    choice: 20,
    documented: 4,
    results: 26,
}
"""The same of long ones."""
FIRST: dict[Callable[[Rng], Text], int] = {again_few: 79}
"""Long texts instead of `LONG` in the first steps."""
SECOND: dict[Callable[[Rng], Text], int] = {
    giving: 12,
    again: 25,
    choice: 36,
    documented: 2,
    results: 2,
}
"""And in those after them: among fewer, labels of choices are mostly not found."""


LENGTHS = (20, 48)
"""The most tokens of a short and of a long text."""


def stream(kind: Callable[[Rng], Text], rng: Rng) -> Iterator[Text]:
    """Endless texts of a kind, none of which has a task's prompt of any seed in it.

    Args:
      kind: one of `SHORT`, `LONG`, `FIRST` and `SECOND`.
      rng: consumed.
    """
    while True:
        text = kind(rng)
        if not has_prompt("".join(text)):
            yield text


def _of(sex: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """Names of one sex that the vocabulary has, those of countries and the like included."""
    known = set(said())
    return tuple(dict.fromkeys((*more, *(n for n in popular_names()[sex] if f" {n}" in known))))


GIRLS, BOYS = _of(" she", words.GIRLS), _of(" he", words.BOYS)
"""Names by pronoun."""
