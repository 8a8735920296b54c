"""Which texts begin with a prompt of a built-in task, of whatever seed: none is trained on.

Forms of prompts may stand further in, in texts of sums and of words that come again.
"""

from __future__ import annotations

import functools
import re

from mgnp_jax.tasks import (
    agreement,
    arithmetic,
    capital,
    docstring,
    gendered_pronouns,
    greater_than,
    induction,
    ioi,
    multiple_choice,
    words,
)

FRAMES = {
    "ioi": ioi.FRAMES,
    "gt": greater_than.TEMPLATES,
    "gp": gendered_pronouns.TEMPLATES,
    "arithmetic": tuple(text for texts in arithmetic.TEMPLATES.values() for text in texts),
    "mcqa": (multiple_choice.TEMPLATE,),
    "docstring": (docstring.TEMPLATE,),
    "sva": agreement.FRAMES + agreement.PHRASES,
    "capital": capital.FRAMES,
}
"""Every frame of the tasks but induction, whose prompts are words alone."""

_PEOPLE = "|".join(word for row in words.PEOPLE for word in row)


def begins_as_prompt(text: str) -> bool:
    """Whether a text begins with what could be a task's prompt, clean or corrupted.

    Args:
      text: any; slots of the tasks' frames may be filled with any word, but for the subjects of
        agreement, since "The" and any word begins much else. "The students" is one of these, so
        their meetings are told of only after something else.
    """
    return bool(_forms().match(text)) or _begins_as_induction(text)


@functools.cache
def _forms() -> re.Pattern[str]:
    """The tasks' frames as one pattern."""
    slots = {"noun": f"(?:{_PEOPLE})", "choices": r"[\w. \n]+", "century": r"\d\d"}
    patterns = []
    for frame in (frame for frames in FRAMES.values() for frame in frames):
        fixed = re.split(r"\{(\w+)\}", frame)
        patterns.append(
            "".join(
                slots.get(part, r"\w+") if i % 2 else re.escape(part)
                for i, part in enumerate(fixed)
            )
        )
    # Digits may follow: those of the year that a century begins.
    return re.compile(rf"(?:{'|'.join(patterns)})(?![A-Za-z])")


def _begins_as_induction(text: str) -> bool:
    """Whether so many different words are followed by some of them, in the same order."""
    size = induction.LENGTH
    found = text.split(" ")[1 : 1 + size + induction.AGAIN]
    first, again = found[:size], found[size:]
    if len(again) < induction.AGAIN or len(set(first)) < size:
        return False
    return any(first[i : i + len(again)] == again for i in range(size))
