"""Indirect object identification: who gets the object, given who hands it over.

Reference: arXiv 2211.00593 for the task; the fifteen frames are our own and are used with
the two names in either order, which makes thirty templates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, usable
from mgnp_jax.tasks.words import BOYS, GIRLS, OBJECTS, PLACES
from mgnp_jax.types import Tokenizer

FRAMES = (
    "Two friends, {A} and {B}, found a {object} near the {place}. In the end {S} gave it to",
    "Friends {A} and {B} bought a {object} at the {place}. Then {S} handed it to",
    "While {A} and {B} were waiting at the {place}, {S} offered a {object} to",
    "Yesterday {A} and {B} walked to the {place}, and {S} lent a {object} to",
    "Then {A} and {B} spent the day at the {place}, and {S} gave a {object} to",
    "Today {A} and {B} had a meeting at the {place}. There {S} presented a {object} to",
    "On Monday {A} and {B} were at the {place}, so {S} delivered the {object} to",
    "The twins {A} and {B} lost a {object} in the {place}. When it was found, {S} gave it back to",
    "At the {place}, {A} and {B} had lunch, and then {S} handed a {object} to",
    "In the {place}, {A} and {B} talked about a {object}. Finally {S} gave it to",
    "Since {A} and {B} had time at the {place}, {S} took out a {object} and showed it to",
    "Last week {A} and {B} went to the {place}. When they came home, {S} gave a {object} to",
    "On the way to the {place}, {A} and {B} found a {object}, and {S} handed it to",
    "The students {A} and {B} painted a {object} for the {place}. Then {S} showed it to",
    "Whenever {A} and {B} meet at the {place}, {S} gives a {object} to",
)

SUBJECT_FIRST, SUBJECT_SECOND = "ABA", "BAA"
"""The two orders: the name that gives (A) is mentioned first, or second."""

TEMPLATES = tuple((frame, order) for frame in FRAMES for order in (SUBJECT_FIRST, SUBJECT_SECOND))
"""Thirty templates: each frame in both orders."""


def fill(template: tuple[str, str], io: str, subject: str, place: str, thing: str) -> str:
    """Writes one prompt.

    Args:
      template: one of `TEMPLATES`.
      io: the indirect object, the right answer.
      subject: who gives; mentioned twice.
      place: fills {place}.
      thing: fills {object}.

    Returns:
      The prompt, up to the answer.
    """
    frame, order = template
    first, second = (subject, io) if order == SUBJECT_FIRST else (io, subject)
    return frame.format(A=first, B=second, S=subject, place=place, object=thing)


def pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; the corrupted prompt has three other names.

    Args:
      rng: consumed.
      tokenizer: names must be single tokens of it.

    Yields:
      Pairs with the logit difference of the two names as score.
    """
    # Five names are in play at once: two clean, three corrupted.
    names = np.array(usable(tokenizer, GIRLS + BOYS, 10, "first names"))
    places = usable(tokenizer, PLACES, 2, "places")
    things = usable(tokenizer, OBJECTS, 2, "objects")
    # Of its own, so that how many more corrupted prompts are drawn changes nothing else.
    (apart,) = rng.spawn(1)
    while True:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        io, subject, *others = rng.choice(names, 5, replace=False).tolist()
        place, thing = (words[rng.integers(len(words))] for words in (places, things))
        frame, _ = template
        write = functools.partial(frame.format, place=place, object=thing)
        yield PromptPair(
            clean=fill(template, io, subject, place, thing),
            corrupted=write(A=others[0], B=others[1], S=others[2]),
            answers=(f" {io}",),
            wrong_answers=(f" {subject}",),
            origin="ioi",
            more_corrupted=functools.partial(_others, apart, write, names, (io, subject)),
        )


def _others(
    rng: np.random.Generator,
    write: Callable[..., str],
    names: np.ndarray,
    clean: tuple[str, str],
    count: int,
) -> list[str]:
    """The same prompt with three names that the clean one lacks, so many times."""
    elsewhere = np.setdiff1d(names, clean)
    draws = (rng.choice(elsewhere, 3, replace=False).tolist() for _ in range(count))
    return [write(A=a, B=b, S=s) for a, b, s in draws]


def swapped_pairs(rng: np.random.Generator, tokenizer: Tokenizer) -> Iterator[PromptPair]:
    """Endless random pairs; in the corrupted prompt the other one gives: one word differs.

    Args:
      rng: consumed.
      tokenizer: names must be single tokens of it.

    Yields:
      Pairs with the logit difference of the two names as score, whose sign the corruption turns.
    """
    for pair in pairs(rng, tokenizer):
        (io,), (subject,) = pair.answers, pair.wrong_answers
        before, after = pair.clean.rsplit(subject, 1)
        yield dataclasses.replace(
            pair,
            corrupted=f"{before}{io}{after}",
            origin="ioi-swapped",
            more_corrupted=lambda count: (),
        )


IOI = Task(name="ioi", counts=Counts(train=200, validation=200, test=12_256), pairs=pairs)

SWAPPED = dataclasses.replace(IOI, name="ioi-swapped", pairs=swapped_pairs)
"""The same, corrupted as MIB does (`s2_io_flip`): who receives in the clean prompt gives."""
