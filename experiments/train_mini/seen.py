"""Which texts have a prompt of a built-in task in them, of whatever seed: none is trained on."""

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

LISTED = tuple(dict.fromkeys(words.PLACES + words.OBJECTS + words.EVENTS + words.COLORS))
"""Words of induction's prompts, which have nothing else."""

_ANY_LISTED = frozenset(LISTED)
_PEOPLE = "|".join(word for row in words.PEOPLE for word in row)


def has_prompt(text: str) -> bool:
    """Whether what could be a task's prompt, clean or corrupted, begins at any word of a text.

    Args:
      text: any; slots of the tasks' frames may be filled with any word, but for the subjects of
        agreement, since "The" and any word begins much else. "The students" is one of these, so
        no meeting of theirs is told of.
    """
    return bool(_forms().search(text)) or _has_induction(text)


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
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?![A-Za-z])")


def _has_induction(text: str) -> bool:
    """Whether so many different words are somewhere followed by some of them, in the same order."""
    found = text.split(" ")
    size, more = induction.LENGTH, induction.AGAIN
    for start in range(len(found) - size - more + 1):
        first, again = found[start : start + size], found[start + size : start + size + more]
        if len(_ANY_LISTED.intersection(first)) == size and again in (
            first[i : i + more] for i in range(size)
        ):
            return True
    return False
