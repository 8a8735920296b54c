"""Addition and subtraction of two-digit numbers, with results of two digits.

Reference: the task of arXiv 2504.13151 (MIB); wording and numbers are our own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task
from mgnp_jax.tasks.tokens import is_single_token, token_ids
from mgnp_jax.types import MgnpError, Tokenizer

NUMBERS = range(10, 100)
"""Operands, and results that are asked for: all of two digits, so that all are equally long."""

TEMPLATES = {
    "+": (
        "Q: How much is {a} plus {b}? A:",
        "{a} + {b} =",
        "The sum of {a} and {b} is",
        "If you add {a} and {b}, you get",
    ),
    "-": (
        "Q: How much is {a} minus {b}? A:",
        "{a} - {b} =",
        "The difference between {a} and {b} is",
        "If you take {b} away from {a}, you get",
    ),
}


class Written(NamedTuple):
    """How a tokenizer writes the number that follows a prompt.

    Attributes:
      end: what prompts end with.
      answers: by number, the text of its first token after such a prompt.
    """

    end: str
    answers: dict[int, str]


def pairs(
    rng: np.random.Generator, tokenizer: Tokenizer, operator: str = "+"
) -> Iterator[PromptPair]:
    """Endless random pairs; in the corrupted prompt one operand is another.

    Args:
      rng: consumed.
      tokenizer: must write numbers as single tokens, or digit by digit.
      operator: `"+"` or `"-"`.

    Yields:
      Pairs scored by the logit difference of both results; right if no other result is likelier.

    Raises:
      MgnpError: if the tokenizer writes numbers otherwise.
    """
    end, answers = written(tokenizer, operator)
    texts = sorted(set(answers.values()))
    others = {right: tuple(text for text in texts if text != right) for right in texts}
    rights = {text: (text,) for text in texts}
    sign = {"+": 1, "-": -1}[operator]
    sums = [(a, b) for a in NUMBERS for b in NUMBERS if a + sign * b in NUMBERS]
    while True:
        template = TEMPLATES[operator][rng.integers(len(TEMPLATES[operator]))] + end
        a, b = sums[rng.integers(len(sums))]
        right = answers[a + sign * b]
        which = rng.integers(2)
        near = [(a, n) if which else (n, b) for n in NUMBERS]
        changed = [
            (c, d) for c, d in near if c + sign * d in NUMBERS and answers[c + sign * d] != right
        ]
        if not changed:
            continue
        c, d = changed[rng.integers(len(changed))]
        yield PromptPair(
            clean=template.format(a=a, b=b),
            corrupted=template.format(a=c, b=d),
            answers=rights[right],
            wrong_answers=others[right],
            scores={"score": (rights[right], rights[answers[c + sign * d]])},
            origin="arithmetic",
        )


def written(tokenizer: Tokenizer, operator: str = "+") -> Written:
    """How the tokenizer writes results: as " 38", or as " " and then "38" or "3" and "8".

    Args:
      tokenizer: the model's.
      operator: whose prompts they follow.

    Raises:
      MgnpError: if it does neither.
    """
    whole = {number: f" {number}" for number in NUMBERS}
    if all(is_single_token(tokenizer, text) for text in whole.values()):
        return Written("", whole)
    bare = {number: str(number) for number in NUMBERS}
    known = sum(is_single_token(tokenizer, text) for text in bare.values())
    if not known:
        bare = {number: text[0] for number, text in bare.items()}
    if known in (0, len(bare)) and _follow(tokenizer, operator, bare):
        return Written(" ", bare)
    raise MgnpError(
        "arithmetic is scored on the number that follows a prompt, or on its tens digit; this "
        f"tokenizer has {sum(is_single_token(tokenizer, text) for text in whole.values())} of the "
        f"90 two-digit numbers as a token with its space and {known} without, and does not write "
        "them digit by digit after a space. Use a model with such a tokenizer "
        "(gpt2-mini, gpt2, smollm2-135m), or bring your own prompts with --data FILE"
    )


def _follow(tokenizer: Tokenizer, operator: str, answers: dict[int, str]) -> bool:
    """Whether numbers after prompts that end in a space begin with these, each one token."""
    for number, text in answers.items():
        if not is_single_token(tokenizer, text):
            return False
        for template in TEMPLATES[operator]:
            prompt = token_ids(tokenizer, template.format(a=number, b=number) + " ")
            both = token_ids(tokenizer, template.format(a=number, b=number) + f" {number}")
            if both[: len(prompt) + 1] != prompt + token_ids(tokenizer, text):
                return False
    return True


def note(tokenizer: Tokenizer) -> str:
    """Says so where only a result's tens digit is scored.

    Args:
      tokenizer: the model's.
    """
    if len(set(written(tokenizer).answers.values())) == len(NUMBERS):
        return ""
    return "This tokenizer writes numbers digit by digit: results are scored on the tens digit"


COUNTS = Counts(train=200, validation=200, test=2_000)

ADDITION, SUBTRACTION = (
    Task(
        name=name,
        counts=COUNTS,
        pairs=functools.partial(pairs, operator=operator),
        note=note,
    )
    for name, operator in (("addition", "+"), ("subtraction", "-"))
)
