"""The tasks beside the paper's: each answer told once more by a reader of the prompt's text."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgnp_jax as mg
from mgnp_jax.tasks import arithmetic, induction, words
from mgnp_jax.tasks.checks import problems_of
from mgnp_jax.tasks.pairs import encode
from mgnp_jax.tasks.prefix import prefix_of
from mgnp_jax.tasks.task import Counts, build
from mgnp_jax.types import Tokenizer


def giver_and_other(text: str) -> str:
    names = [name for name in re.findall(r"\w+", text) if name in {*words.GIRLS, *words.BOYS}]
    *both, giver = names
    assert len(both) == 2 and both.count(giver) == 1
    return both[1 - both.index(giver)]


def result(text: str) -> str:
    a, b = map(int, re.findall(r"\d+", text))
    if "plus" in text or "+" in text or "sum" in text or "add" in text:
        return str(a + b)
    return str(b - a if "away" in text else a - b)


def label(text: str) -> str:
    color = re.match(r"The \w+ is (\w+)\.", text)
    assert color
    (found,) = re.findall(rf"^([A-D])\. {color[1]}$", text, re.MULTILINE)
    return found


def next_parameter(text: str) -> str:
    head = re.match(r"def \w+\(self, (.*)\):", text)
    assert head
    parameters = head[1].split(", ")
    assert re.findall(r":param (\w+):", text) == parameters[:2] and text.endswith(":param")
    return parameters[2]


def number_of_the_subject(text: str) -> str:
    nouns = {form: number for forms in words.PEOPLE for number, form in enumerate(forms)}
    (number,) = [nouns[word] for word in text.split() if word in nouns]
    return ("is", "are")[number]


def follower(text: str) -> str:
    found = text.split()
    *before, first, second = found
    (place,) = [i for i, pair in enumerate(itertools.pairwise(before)) if pair == (first, second)]
    return before[place + 2]


def capital(text: str) -> str:
    (country,) = {word for word in re.findall(r"\w+", text) if word in words.CAPITALS}
    return words.CAPITALS[country]


READERS: dict[str, tuple[Callable[[str], str], int]] = {
    "ioi-swapped": (giver_and_other, 1),
    "addition": (result, 1),
    "subtraction": (result, 1),
    "mcqa": (label, 2),
    "docstring": (next_parameter, 2),
    "sva": (number_of_the_subject, 1),
    "sva-phrase": (number_of_the_subject, 1),
    "induction": (follower, 2 * induction.AGAIN),
    "capital": (capital, 1),
}
"""What a prompt asks for, and in how many words a pair differs."""
SEEDS = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_every_task_but_the_papers_is_read_here() -> None:
    assert {*mg.TASKS} - {*READERS} == {"ioi", "gt", "gp", "gt-other"}


@pytest.mark.parametrize("which", ["gpt2_tokenizer", "digit_tokenizer"])
@pytest.mark.parametrize("name", READERS)
@given(seed=st.integers(0, 2**32 - 1))
@SEEDS
def test_answers_are_what_the_prompts_ask_for(
    request: pytest.FixtureRequest, which: str, name: str, seed: int
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    asked, differ = READERS[name]
    rng = np.random.default_rng(seed)
    pairs = list(itertools.islice(mg.TASKS[name].pairs(rng, tokenizer), 25))
    prefix = prefix_of(tokenizer)
    encoded = encode(tokenizer, pairs, prefix)
    assert not any(problems_of(tokenizer, encoded, prefix))
    for pair, clean, corrupted in encoded.rows:
        assert len(clean) == len(corrupted)
        words_of = [text.split() for text in (pair.clean, str(pair.corrupted))]
        assert sum(a != b for a, b in zip(*words_of, strict=True)) == differ
        right, wrong = pair.sets["score"]
        before, after = (asked(text) for text in (pair.clean, str(pair.corrupted)))
        # Of a number that is written digit by digit, the first digit.
        scored = len(right[0].strip()) if name in ("addition", "subtraction") else None
        assert {before[:scored]} <= {text.strip() for text in right}
        assert {after[:scored]} <= {text.strip() for text in wrong}
        assert {*right} <= {*pair.answers} and {*wrong} <= {*pair.wrong_answers}
        # A space is either the prompt's or the answer's.
        assert {text[0] == " " for text in pair.answers} == {not pair.clean.endswith(" ")}


@pytest.mark.parametrize("name", READERS)
def test_splits_have_their_counts_and_share_no_prompt(gpt2_tokenizer: Tokenizer, name: str) -> None:
    task = mg.TASKS[name]
    few = Counts(train=20, validation=20, test=min(task.counts.test, 400))
    data = build(dataclasses.replace(task, counts=few), gpt2_tokenizer, 0)
    splits = [
        {row.tobytes() for row in np.asarray(split.clean)}
        for split in (data.train, data.validation, data.test)
    ]
    assert list(map(len, splits)) == list(dataclasses.astuple(few))
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2])
    again = build(dataclasses.replace(task, counts=few), gpt2_tokenizer, 0)
    assert again.checksum() == data.checksum()
    assert build(dataclasses.replace(task, counts=few), gpt2_tokenizer, 1).checksum() != (
        data.checksum()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mcqa", "only 0 of 4 labels are single tokens of this tokenizer, wanted at least 4"),
        ("docstring", r"only \d of \d+ parameters' names are .* wanted at least 12"),
        ("sva", r"only \d of \d+ people's nouns in both numbers are .* wanted at least 10"),
        ("sva-phrase", r"only \d of \d+ people's nouns in both numbers are"),
        ("capital", r"only 0 of \d+ countries with their capitals are .* wanted at least 10"),
        ("addition", r"has \d+ of the 90 two-digit numbers as a token .* --data FILE"),
        ("subtraction", r"has \d+ of the 90 two-digit numbers as a token .* --data FILE"),
    ],
)
def test_a_tokenizer_that_lacks_the_words_is_told_how_many(name: str, message: str) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<|unk|>", *words.OBJECTS, *words.COLORS, "teacher", "teachers", "is", "are", "file"]
    spelt = Backend(models.WordLevel({word: i for i, word in enumerate(known)}, "<|unk|>"))
    spelt.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelt, unk_token="<|unk|>")
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_task(name, tokenizer)


def test_numbers_are_scored_whole_or_by_their_tens_digit(
    gpt2_tokenizer: Tokenizer, digit_tokenizer: Tokenizer
) -> None:
    whole, digits = (arithmetic.written(t) for t in (gpt2_tokenizer, digit_tokenizer))
    assert (whole.end, whole.answers[38]) == ("", " 38") and len(whole.answers) == 90
    assert (digits.end, digits.answers[38]) == (" ", "3") and len({*digits.answers.values()}) == 9
    assert arithmetic.note(gpt2_tokenizer) == ""
    assert "scored on the tens digit" in mg.load_task("addition", digit_tokenizer).note


def test_one_verb_is_enough(digit_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgnp_jax.tasks.agreement.VERBS", (("is", "are"), ("xyzzy", "plugh")))
    pair = next(mg.TASKS["sva"].pairs(np.random.default_rng(0), digit_tokenizer))
    assert {*pair.answers, *pair.wrong_answers} == {" is", " are"}


def test_a_word_that_two_lists_have_is_used_once(gpt2_tokenizer: Tokenizer) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pair = next(mg.TASKS["induction"].pairs(rng, gpt2_tokenizer))
        assert len({*pair.clean.split()}) == induction.LENGTH
