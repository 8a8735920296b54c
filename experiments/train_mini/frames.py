"""Frames of the texts that gpt2-mini is trained on: the tasks' words in other sentences.

None is a task's own, and no text in one has a task's prompt in it (`seen.has_prompt`).
"""

from __future__ import annotations

import itertools
import re

from experiments.train_mini.seen import has_prompt
from mgnp_jax.tasks import gendered_pronouns, ioi

GENDER = (
    ("When {name} came home,", " he", " she"),
    ("Everyone says that {name} is happy, and that", " he", " she"),
    ("At the end of the day {name} was tired, so", " he", " she"),
)
"""Sentences and the pronouns that may follow."""

_OPENINGS, _TRAITS = zip(
    *(re.split(r"(?<=\{name\})", text) for text in gendered_pronouns.TEMPLATES)
)
TAGS = tuple(
    opening + trait
    for i, opening in enumerate(_OPENINGS)
    for j, trait in enumerate(_TRAITS)
    if i != j
)
"""Tag questions, each the beginning of one of the task's with the end of another."""

# A meeting, and who then gives; cut at the last stop before the giver.
_HALVES = [re.findall(r"^(.*[.,])( .*\{S\}.*)$", frame)[0] for frame in ioi.FRAMES]
GIVING = tuple(
    (meeting, giving)
    for meeting, ending in _HALVES
    for other, giving in _HALVES
    if meeting[-1] == other[-1] and (meeting, giving) not in _HALVES
)
"""What two people do, with what one of them does in another of the task's frames."""
GIVING_MORE = (
    ". Then {S} gave a {object} to",
    ". There {S} lent it to",
    ". Today {S} handed a {object} back to",
    ". In the end {S} showed it to",
    ". Finally {S} offered a {object} to",
)
"""What one of the two does next."""
CAME_FROM = ", which came from"
"""Said instead of to whom; who gave is easily found, and what has found it is then used."""
BEFORE = (
    "Today {name} was late. ",
    "Well, {name} was tired. ",
    "Then {name} came home. ",
    "And {name} is happy. ",
)
"""Told before, so that how often someone is named does not say who gives."""
ASIDE = ("{S}, who knew {other},", "{S}, beside {other},", "{S}, near {other},")
"""Said of the giver, so that who is named last need not be who gives."""

SPANS = (
    "They say the {event} went on from {year} until {century}",
    "Historians say that a {event} began in {year} and was over by {century}",
    "A {event} opened in {year} and stopped only in {century}",
    "Between the year {year} and the year {century}",
    "It went on with another {event} from {year} to {century}",
    "The year of the {event} was {year} and its end was in {century}",
    "There was a {event}, which opened in {year} and closed in {century}",
    "Historians date its end, from {year} until {century}",
    "The {event} went on from {year} to {century}",
    "They say the {event} began in {year} and stopped only in {century}",
    "Historians date a {event} from the year {year} to the year {century}",
    "It opened with a {event} in {year} and was over by {century}",
    "It began with a {event} in {year} and closed with another in {century}",
    "Between {year} and the end there was a {event}, which closed only in {century}",
)
"""Spans of years, up to the century in which one ended."""

_ASKED = ("", "Q: How much is", "Q:", "If", "They say that", "We know that")
_WORDED = {
    "+": (
        "{a} plus {b}",
        "{a} + {b}",
        "{a} and {b}",
        "the sum of {a} and {b}",
        "you add {a} and {b}",
        "you add {b} to {a}",
    ),
    "-": (
        "{a} minus {b}",
        "{a} - {b}",
        "{a} less {b}",
        "the difference between {a} and {b}",
        "you take {b} away from {a}",
        "you take {b} from {a}",
    ),
}
_ANSWERED = (" is", " =", "? A:", ", you get")


def _sums(operator: str) -> tuple[str, ...]:
    """Every way to ask, to word and to be answered, together; shortest first."""
    parts = itertools.product(_ASKED, _WORDED[operator], _ANSWERED)
    texts = (f"{asked} {worded}{answered}".strip() for asked, worded, answered in parts)
    capital = (text[0].upper() + text[1:] for text in texts)
    return tuple(
        sorted((text for text in capital if not has_prompt(text.format(a=10, b=10))), key=len)
    )


SUMS = {operator: _sums(operator) for operator in _WORDED}
"""Questions by operator, none of which has a task's in it."""

AGREEMENT = (
    "Our {noun}",
    "And the {noun}",
    "Today my {noun}",
    "In the end my {noun}",
    "It seems that my {noun}",
    "They say the {noun}",
    "I think that the {noun}",
    "We know that the {noun}",
    "Everyone heard that the {noun}",
    "She told us the {noun}",
    "We think the {noun}",
    "In the end it seems the {noun}",
)
"""Subjects, up to their verb."""
AGREEMENT_PHRASES = tuple(
    f"{start} {{noun}} {preposition} the {{other}}"
    for start in ("And the", "Our", "They say the", "I think that the", "We know that the")
    for preposition in ("near", "behind", "beside", "with", "in front of")
)
"""The same with a phrase in between."""

CAPITALS = (
    "The city of {country} is",
    "And the capital of {country} is",
    "Everyone knows that the capital city of {country} is",
    "They say that the capital of {country} is",
    "We flew to {country} to live in the city of",
    "The government of {country} is in the capital,",
    "The embassy in {country} has its seat in the city of",
    "She moved to {country} to visit its capital,",
    "As the map of {country} is marked, the capital is",
    "On the map of {country}, people name the capital as",
    "Q: What is the capital city of {country}? A: It is",
    "If you travel to {country}, people work in its capital,",
    "Most people of {country} live in its capital,",
    "She flew to the capital of {country}, marked as the city of",
    "Most ministers of {country} travel to the city of",
    "Most people of {country} work in its capital,",
    "They flew to the capital of {country}, the city of",
    "We travel to the capital of {country}, the city of",
)
"""A country, up to its capital's name."""

STATEMENTS = ("The {thing} is {color}.", "The {thing} was {color}.", "My {thing} is {color}.")
"""What color something has."""
QUESTIONS = (
    "What color is the {thing}?",
    "What color was the {thing}?",
    "What is the color of the {thing}?",
)
"""How it is asked for."""
CHOICE = "{statement}\nQuestion: {question}\n{choices}\nAnswer:"
"""A color that is said, and its choices."""

SUMMARY = ("of a", "for the", "near the", "and the", "with the")
"""What stands between the two nouns of a docstring's first line."""
