"""The words that gpt2-mini knows: those of the tasks and of its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from experiments.train_mini import frames
from experiments.train_mini.seen import FRAMES, LISTED
from mgnp_jax.tasks import agreement, arithmetic, greater_than, multiple_choice, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Words are kept with their leading space, numbers in pairs of digits, as GPT-2 has them.
WORD = r" ?[A-Za-z']+| ?\d\d| ?[^\w\s]|\s+"

NAMES = words.GIRLS + words.BOYS
"""Of who gives and is given something."""
THINGS = words.PLACES + words.OBJECTS + words.EVENTS
"""Nouns for all other texts."""


def said() -> Iterator[str]:
    """Everything that tasks and texts are made of, in texts of which none has a slot."""
    own = (
        *frames.SPANS,
        *frames.TAGS,
        *frames.GIVING_MORE,
        frames.CAME_FROM,
        *frames.BEFORE,
        *frames.ASIDE,
        *frames.AGREEMENT,
    )
    own += (*frames.AGREEMENT_PHRASES, *frames.CAPITALS, *frames.STATEMENTS, *frames.QUESTIONS)
    own += (frames.CHOICE, *(sentence for sentence, _, _ in frames.GENDER))
    own += (*frames.SUMS["+"], *frames.SUMS["-"])
    for frame in (*own, *(frame for task in FRAMES.values() for frame in task)):
        # What stands before a slot's word is that word's own space.
        yield from re.split(r" ?\{\w+\}", frame)
    yield from (f" {part}" for part in frames.SUMMARY)
    # Where something is told before them.
    starts = (*frames.BEFORE, *(meeting for meeting, _ in frames.GIVING))
    starts += (*frames.SUMS["+"], *frames.SUMS["-"])
    yield from (" " + text.split(" ")[0].rstrip(",:") for text in starts if text[0] != "{")
    rows = (*words.PEOPLE, *words.NEARBY, *agreement.VERBS, *words.CAPITALS.items())
    lists = (
        NAMES,
        LISTED,
        words.COLORED,
        words.PARAMETERS,
        arithmetic.NUMBERS,
        ("he", "she"),
        *rows,
    )
    yield from (f" {word}" for some in lists for word in some)
    yield from (f" {century}" for century in greater_than.CENTURIES)
    yield from greater_than.DIGITS
    yield from (word.title() for word in THINGS)
    yield from (f"{space}{label}" for label in multiple_choice.LABELS for space in ("", " "))
    yield from ("\n    ", "Color:")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose vocabulary is what the tasks and the texts can say."""
    # Imported here: before a command has begun, its first words are that PyTorch is missing.
    from transformers import PreTrainedTokenizerFast

    found = {token for text in said() for token in re.findall(WORD, text)}
    vocabulary = {token: i for i, token in enumerate(["<|unk|>", *sorted(found)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|unk|>", clean_up_tokenization_spaces=False
    )
