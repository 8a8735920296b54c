"""What the embedded model is trained on, and that no text has a task's prompt in it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from experiments.train_mini import texts
from experiments.train_mini.measure import MeasureConfig, measured, report
from experiments.train_mini.rows import batches, encode
from experiments.train_mini.seen import LISTED, has_prompt
from experiments.train_mini.tokenizer import NAMES, make_tokenizer
from experiments.train_mini.train import TrainMiniConfig, loss_fn
from mgnp_jax.models.weights import init_params
from mgnp_jax.tasks import agreement
from mgnp_jax.tasks.task import distinct_pairs
from mgnp_jax.types import Tokenizer
from tests import tiny

KINDS = (*texts.SHORT, *texts.LONG, *texts.FIRST)


@pytest.fixture(scope="module")
def learnt() -> dict[str, list[texts.Text]]:
    """Texts of every kind."""
    rng = np.random.default_rng(0)
    return {k.__name__: list(itertools.islice(texts.stream(k, rng), 400)) for k in KINDS}


@pytest.fixture(scope="module")
def told(learnt: dict[str, list[texts.Text]]) -> str:
    """All of them, so that one look finds what any of them has."""
    return "\0".join("".join(text) for some in learnt.values() for text in some)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """That of the model."""
    return make_tokenizer()


def prompts(tokenizer: Tokenizer, task: str, seed: int) -> list[str]:
    """Clean and corrupted prompts of all splits, as text."""
    found = []
    for pair in distinct_pairs(mg.TASKS[task], tokenizer, seed):
        corrupted = [pair.corrupted] if isinstance(pair.corrupted, str) else pair.corrupted
        found += [pair.clean, *corrupted, *pair.more_corrupted(1)]
    return found


@pytest.mark.parametrize("task", mg.TASKS)
def test_no_text_has_a_prompt_in_it(tokenizer: Tokenizer, told: str, task: str) -> None:
    """Whatever the seed: all of them are of a form that no text has at any of its words."""
    for seed in (0, 1, 3):
        found = set(prompts(tokenizer, task, seed))
        assert all(map(has_prompt, found))
        # Looked for as it is, which is quick; then whether it ends where a word does.
        told_of = [re.escape(prompt) for prompt in found if prompt in told]
        assert not any(re.search(rf"{prompt}(?![a-z])", told) for prompt in told_of)


def test_the_prompts_of_the_tests_are_those_of_the_tasks(tokenizer: Tokenizer) -> None:
    """Decoded, what a task loads is among the texts that are compared above."""
    for task in ("ioi", "mcqa", "docstring", "induction"):
        test = mg.load_task(task, tokenizer, seed=1).test
        rows = [row[mask] for row, mask in zip(test.clean[:50], test.attention_mask[:50])]
        assert set(tokenizer.batch_decode(rows)) <= set(prompts(tokenizer, task, 1))


def listed(letters: str) -> str:
    """Words of induction, the same where letters are."""
    return "".join(f" {LISTED[ord(letter) - ord('a')]}" for letter in letters)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("The teacher is", True),
        ("The teacherly", False),
        ("Our teacher is", False),
        ("47 + 32 = 79", True),
        ("47 plus 32 is", False),
        ("Q: 47 + 32 =", True),
        ("It is 47 + 32 is 79", False),
        ("Today the teacher", True),
        ("Well, today my teacher", False),
        ("The war went on from 1743 until 1750", True),
        (listed("abcdefghijbc"), True),
        (listed("kabcdefghijbca"), True),
        (listed("abcdefghijbd"), False),
        (listed("abcdefghibcdefghibc"), False),
        (" " + " ".join("abcdefghijbc"), False),
    ],
)
def test_what_has_a_prompt(text: str, has: bool) -> None:
    assert has_prompt(text) == has


def test_texts_are_words_that_the_model_knows(
    tokenizer: Tokenizer, learnt: dict[str, list[texts.Text]]
) -> None:
    for kinds, length in zip((texts.SHORT, (*texts.LONG, *texts.FIRST)), texts.LENGTHS):
        for kind in kinds:
            whole = ["".join(text) for text in learnt[kind.__name__]]
            for text, ids in zip(whole, tokenizer(whole)["input_ids"]):  # type: ignore[arg-type]
                assert 0 not in ids and len(ids) <= length
                assert tokenizer.decode(ids) == text


def names_in(text: str) -> list[str]:
    """First names in their order."""
    return [word for word in re.findall(r"[A-Z][a-z]+", text) if word in NAMES]


def in_turns(text: texts.Text) -> list[tuple[str, str, str]]:
    """Each answer, after all that is said before it and what is said since the last answer."""
    pairs = zip(text[::2], text[1::2], strict=True)
    return [
        ("".join(text[: 2 * i]), told, answer.strip()) for i, (told, answer) in enumerate(pairs)
    ]


def test_who_gives_is_not_told_by_counts_nor_by_who_comes_last(
    learnt: dict[str, list[texts.Text]],
) -> None:
    most, last = [], []
    for before, told, answer in (turn for text in learnt["giving"] for turn in in_turns(text)):
        names = names_in(before + told)
        (other,) = set(names) - {answer}
        given = told.endswith(" to")
        assert given or told.endswith(", which came from")
        most.append(names.count(other) - names.count(answer))
        last.append(names[-1] == answer)
        if " knew " not in told and " beside " not in told and " near " not in told.split(".")[-1]:
            # Without an aside who gives is named last.
            assert names[-1] == (other if given else answer)
    assert min(np.mean(np.sign(most) == sign) for sign in (-1, 0, 1)) > 0.1
    assert 0.3 < np.mean(last) < 0.7


def test_answers_follow_from_what_is_told(learnt: dict[str, list[texts.Text]]) -> None:
    for text in (*learnt["again"], *learnt["again_few"]):
        told, answer = (part.split() for part in text)
        for i, word in enumerate(answer, len(told)):
            before = (told + answer)[:i]
            assert word == before[before.index(before[-1]) + 1]
    for text in learnt["choice"]:
        labels = {name: label for label, name in re.findall(r"\n(\w)\. (\w+)", "".join(text))}
        said = re.findall(r" (?:is|was) (\w+)\.\n", text[0])[0]
        for _, told, answer in in_turns(text):
            if told.endswith("Color:"):
                assert answer == said
            else:
                color = said if told.endswith("Answer:") else told.split()[-1]
                assert answer == labels[color]
    for _, told, answer in (turn for text in learnt["results"] for turn in in_turns(text)):
        numbers = [int(number) for number in re.findall(r"\d\d", told)]
        taken = re.search(r" minus | - | less |difference|take", told)
        assert int(answer) == (max(numbers) - min(numbers) if taken else sum(numbers)), told
    for told, answer in learnt["pronoun"]:
        (name,) = {*re.findall(r"[A-Z][a-z]+", told)} & {*texts.GIRLS, *texts.BOYS}
        assert answer == (" she" if name in texts.GIRLS else " he")
    people = {form: i for row in texts.words.PEOPLE for i, form in enumerate(row)}
    for told, answer in learnt["agree"]:
        subject = next(word for word in told.split() if word in people)
        assert answer.strip() in [row[people[subject]] for row in agreement.VERBS]
    for told, answer in learnt["documented"]:
        parameters = re.findall(r"(\w+)[,)]", told.split("\n")[0])
        assert answer.strip() == parameters[told.count(":param")]
    for told, answer in learnt["span"]:
        assert int(answer) > int(re.findall(r"\d\d(\d\d)", told)[0])
    for told, answer in learnt["capital"]:
        assert any(
            told.count(c) and answer == f" {city}" for c, city in texts.words.CAPITALS.items()
        )


def test_a_batch_has_every_kind_and_weighs_answers_alone(tokenizer: Tokenizer) -> None:
    short, long = next(batches(np.random.default_rng(0), tokenizer, 10))
    assert len(short.tokens) >= len(texts.SHORT) and len(long.tokens) >= len(texts.LONG)
    begun = batches(np.random.default_rng(0), tokenizer, 10, first=1)
    few = {0, *(ids[0] for ids in tokenizer([f" {word}" for word in LISTED[:40]])["input_ids"])}
    assert set(next(begun)[1].tokens.flat) <= few and not set(next(begun)[1].tokens.flat) <= few
    word = tokenizer.convert_tokens_to_ids("Answer")
    then = batches(np.random.default_rng(0), tokenizer, 100, second=1)
    of_choices, after = (np.mean((next(then)[1].tokens == word).any(1)) for _ in range(2))
    assert of_choices > 0.4 and 0.2 < after < 0.3
    rows = encode(tokenizer, [(" war siege war", " siege"), ("Our", " king is", " a", " b")], 7)
    half = 3**-0.5
    np.testing.assert_allclose(rows.answers, [[0, 0, 1, 0, 0, 0], [half, half, 0, half, 0, 0]])
    np.testing.assert_array_equal(rows.real, [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])


def test_costs_are_added_only_as_they_grow(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shape = dataclasses.replace(tiny.GPT2, vocab_size=len(tokenizer), context=64)
    params = init_params(jax.random.key(0), shape)
    batch = next(batches(np.random.default_rng(0), tokenizer, 10))

    def loss(price: float, **changed: float) -> float:
        config = TrainMiniConfig(out=tmp_path, **changed)  # type: ignore[arg-type]
        return float(loss_fn(params, shape, batch, config, jnp.float32(price)))

    without = loss(0.0)
    assert loss(1.0, head_cost=0.0, neuron_cost=0.0) == pytest.approx(without, abs=1e-5)
    heads, neurons = (
        loss(1.0, head_cost=head, neuron_cost=neuron) - without
        for head, neuron in ((10.0, 0.0), (0.0, 10.0))
    )
    assert heads > 1e-3 and neurons > 1e-3
    half = loss(0.5, head_cost=10.0, neuron_cost=10.0) - without
    assert half == pytest.approx((heads + neurons) / 2, rel=1e-2)
    # Of an untrained model nothing is known but that some word follows.
    assert loss(0.0, prompt_weight=0.0) == pytest.approx(np.log(len(tokenizer)), rel=0.05)


@pytest.mark.parametrize("task", ["ioi", "induction", "docstring"])
def test_the_embedded_model_does_not_find_an_answer_in_one_layer(mini: mg.Model, task: str) -> None:
    """Without the attention of either of two layers, a third of the score is lost or more."""
    whole, without = measured(mini, task, MeasureConfig(seed=7, test_prompts=100))
    assert sum(each["score"] < 2 / 3 * whole["score"] for each in without) >= 2


def test_what_the_model_knows_is_said_by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each task, of the whole model and without each of its layers' attention."""
    monkeypatch.setattr(mg, "TASKS", {"gp": mg.TASKS["gp"]})
    console = Console(file=io.StringIO(), width=150)
    report(MeasureConfig(test_prompts=20), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    (row,) = [line for line in text.splitlines() if " gp " in line]
    cells = re.findall(r"(\d\.\d{3}), (-?\d+\.\d\d)", row)
    assert len(cells) == 1 + 4
    assert cells[0][0] == "1.000" and float(cells[1][0]) < 0.5, "layer 0 knows the names"
