"""Answers of several tokens: rows that sum to log-probabilities of whole continuations."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning.published import once_each
from mgnp_jax.metrics.sanity import check_task
from mgnp_jax.runs.compare_config import CompareConfig
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.tasks.altered import half_of, with_answers_of_others
from mgnp_jax.tasks.whole_answers import readings_of, targets_of

PROMPT = "Then {} and {} spent the day at the park, and {} gave a book to"
NAMES = ("Mary", "John", "Emma", "Paul", "Lisa", "Mark", "Adam", "Anna")
SHARED = ((" {a} and {b}", " {a} and Anna", " the park"), (" {b}", " {b} and the {a}", " the day"))
"""Several right and wrong answers of one to four tokens; some begin alike, across sides, too."""


def pairs_of(answers: Any = SHARED, count: int = 6, more: int = 2) -> list[mg.PromptPair]:
    """Prompts with some corrupted ones each."""
    found = []
    for i in range(count):
        a, b, c, d = (NAMES[(i + k) % len(NAMES)] for k in range(4))
        right, wrong = ([text.format(a=a, b=b) for text in side] for side in answers)
        found.append(
            mg.PromptPair(
                clean=PROMPT.format(a, b, b),
                corrupted=[PROMPT.format(c, d, d), PROMPT.format(d, c, c)][:more],
                answers=right,
                wrong_answers=wrong,
                split=("train", "validation", "test")[min(i // 2, 2)],
            )
        )
    return found


@pytest.fixture(scope="module")
def data(mini: mg.Model) -> mg.TaskData:
    return mg.from_pairs(mini.tokenizer, pairs_of(), answer="whole")


@functools.cache
def some_masks(fill: float | None) -> Any:
    """Gates of the embedded model: all alike, or some of them open."""
    config = mg.load_model("gpt2-mini").config
    if fill is not None:
        return mg.full_masks(config, fill)
    rng = np.random.default_rng(0)
    return {k: jnp.asarray(rng.random(m.shape) < 0.8) for k, m in mg.full_masks(config).items()}


def continued(
    model: mg.Model, masks: Any, clean: str, corrupted: str, answer: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a whole continuation: its tokens, and [t, V] log-probabilities before each of them.

    Those of the model on clean prompts and of the circuit, from single passes over everything.
    """
    tokens = [model.tokenizer.encode(text) for text in (clean, corrupted, answer)]
    length, width = len(tokens[0]), 24
    both = np.zeros((2, 1, width), np.int32)
    for row, prompt in zip(both, tokens):
        filled = [*prompt, *tokens[2]]
        row[0, : len(filled)] = filled
    real = np.arange(width)[None] < length + len(tokens[2])
    base = mg.forward(model.config, model.params, both[0], real)
    own = mg.two_stream_forward(model.config, model.params, masks, both[0], both[1], real)
    read = slice(length - 1, length - 1 + len(tokens[2]))
    of_base, of_own = (np.asarray(jax.nn.log_softmax(x[0, read]), np.float64) for x in (base, own))
    return np.array(tokens[2]), of_base, of_own


def directly(model: mg.Model, masks: Any, pairs: list[mg.PromptPair]) -> dict[str, float]:
    """The figures of `evaluate` from whole continuations, pair by pair."""
    rows = []
    for pair in pairs:
        for corrupted in pair.corrupted:
            scores: list[list[list[float]]] = [[], []]
            kls: dict[tuple[int, ...], float] = {}
            for side, texts in enumerate((pair.answers, pair.wrong_answers)):
                for text in texts:
                    ids, base, own = continued(model, masks, pair.clean, corrupted, text)
                    at = np.arange(len(ids)), ids
                    scores[side].append([x[at].sum() for x in (base, own)])
                    for t in range(len(ids)):
                        kl = (np.exp(base[t]) * (base[t] - own[t])).sum()
                        kls[tuple(ids[:t])] = kl
            right, wrong = map(np.array, scores)
            difference, best = right.mean(0) - wrong.mean(0), right.max(0) > wrong.max(0)
            rows.append([*difference, *best, np.mean(list(kls.values()))])
    names = ("base_score", "score", "base_accuracy", "accuracy", "kl")
    return dict(zip(names, np.mean(rows, axis=0).tolist()))


@pytest.mark.parametrize("fill", [None, 1.0, 0.0])
def test_figures_are_those_of_whole_continuations(
    mini: mg.Model, data: mg.TaskData, fill: float | None
) -> None:
    masks = some_masks(fill)
    figures = mg.evaluate(mini, masks, data.test, batch_size=5)
    expected = directly(mini, masks, pairs_of()[4:])
    assert figures["prompts"] == 4
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=2e-4), name
    if fill == 1.0:
        assert figures["kl"] == pytest.approx(0, abs=1e-6)
        assert figures["score"] == pytest.approx(figures["base_score"], abs=1e-4)
    else:
        assert figures["kl"] > 0.01


def test_nothing_kept_is_the_corrupted_prompt_with_the_same_continuation(
    mini: mg.Model, data: mg.TaskData
) -> None:
    figures = mg.evaluate(mini, some_masks(0.0), data.test)
    # The last tokens of both prompts are alike, so that the embedding, which stays, is, too.
    swapped = [
        dataclasses.replace(pair, clean=text, corrupted=[text])
        for pair in pairs_of()[4:]
        for text in pair.corrupted
    ]
    expected = directly(mini, some_masks(1.0), swapped)
    assert figures["score"] == pytest.approx(expected["base_score"], abs=2e-4)
    assert figures["accuracy"] == expected["base_accuracy"]


def test_accuracy_is_of_sums_and_not_of_first_tokens(mini: mg.Model) -> None:
    # The right answer begins as the model would, and goes on as it would not.
    pairs = pairs_of(((" {a} park park",), (" {b}",)))
    of = {
        answer: mg.evaluate(
            mini,
            some_masks(1.0),
            mg.from_pairs(mini.tokenizer, pairs, answer=answer).test,
        )
        for answer in ("first", "whole")
    }
    assert of["first"]["base_accuracy"] == 1
    assert of["whole"]["base_accuracy"] == directly(mini, some_masks(1.0), pairs[4:])["accuracy"]
    assert of["whole"]["base_accuracy"] == 0


def test_probabilities_of_whole_answers_have_no_difference(
    mini: mg.Model, data: mg.TaskData
) -> None:
    method: Any = mg.METHODS["nap"]
    with pytest.raises(mg.MgnpError, match="prob_diff is of answers of one token .* take score"):
        mg.discover(jax.random.key(0), mini, data, method(effect_on="prob_diff"))


def test_answers_of_one_token_have_the_figures_of_single(mini: mg.Model) -> None:
    pairs = pairs_of(((" {a}", " Anna"), (" {b}", " the")))
    single, whole = (
        mg.from_pairs(mini.tokenizer, pairs, answer=answer) for answer in ("single", "whole")
    )
    assert len(single.test) == len(whole.test) == whole.test.pairs == 4
    figures = [mg.evaluate(mini, some_masks(None), each.test) for each in (single, whole)]
    for name, value in figures[0].items():
        if name != "answered":
            assert figures[1][name] == pytest.approx(value, abs=1e-4), name
    assert check_task(mini, single.train) == check_task(mini, whole.train)
    # So does what is found with them.
    method = mg.METHODS["nap"]()
    found = [mg.discover(jax.random.key(0), mini, each, method) for each in (single, whole)]
    one, other = (each.scores for each in found)
    assert one is not None and other is not None
    for name, scores in one.items():
        size = float(jnp.abs(scores).max())
        np.testing.assert_allclose(scores, other[name], atol=1e-4 * size, err_msg=name)


def test_rows_are_shared_by_answers_that_begin_alike(mini: mg.Model, data: mg.TaskData) -> None:
    text = [
        mini.tokenizer.decode(row[mask].tolist())
        for row, mask in zip(data.test.clean, data.test.attention_mask)
    ]
    begun = ["", " Lisa", " Mark", " the", " Lisa and", " Mark and", " Mark and the"]
    # Pairs 4 and 5 have the names Lisa, Mark and Mark, Adam; each has two corrupted prompts.
    prompt = PROMPT.format("Lisa", "Mark", "Mark")
    assert sorted(text[:7]) == sorted(prompt + each for each in begun)
    assert data.test.pairs == 4 and len(data.test) == 28
    assert data.counts() == {"train": 2, "validation": 2, "test": 2}
    assert "Answers are scored whole: 12 pairs in 84 rows" in data.note
    assert [*data.test.openings().attention_mask.sum(1)] == [len(prompt.split()) + 1] * 4


def test_pairs_are_taken_whole(data: mg.TaskData) -> None:
    batch = data.test
    assert len(batch.of_pairs(slice(3))) == 21 and batch.of_pairs(slice(3)).pairs == 3
    assert batch.of_pairs(slice(None)).pairs == batch.of_pairs(slice(99)).pairs == 4
    spread = batch.spread(2)
    assert [*spread.pair] == [batch.pair[0]] * 7 + [batch.pair[14]] * 7
    halves = [half_of(data, which).train for which in (0, 1)]
    assert [len(half) for half in halves] == [14, 14]
    assert not {*halves[0].pair} & {*halves[1].pair}


def test_pairs_that_were_cut_are_not_measured(mini: mg.Model, data: mg.TaskData) -> None:
    # The last of a pair's rows, its first, the first pair twice.
    for rows in (slice(6), slice(1, 14), [*range(7), *range(7)]):
        with pytest.raises(mg.MgnpError, match="1 pair of .* select pairs with Batch.of_pairs"):
            mg.evaluate(mini, some_masks(1.0), data.test.take(rows))


def test_one_pair_of_a_clean_prompt_has_all_its_rows(mini: mg.Model) -> None:
    # The same clean prompts in further pairs, with other answers and so other rows.
    pairs = pairs_of(more=1)
    pairs += [dataclasses.replace(pair, answers=[" park park"]) for pair in pairs_of(more=1)]
    train = mg.from_pairs(mini.tokenizer, pairs, answer="whole").train
    chosen = once_each(train)
    assert (train.pairs, chosen.pairs) == (4, 2)
    chex.assert_trees_all_equal(chosen, train.take(np.isin(train.pair, [1, 3])))


def test_splits_share_no_prompt(mini: mg.Model) -> None:
    pairs = [dataclasses.replace(pair, split=None) for pair in pairs_of(count=8)]
    for seed in range(3):
        found = mg.from_pairs(mini.tokenizer, pairs, answer="whole", seed=seed)
        splits = [found.train, found.validation, found.test]
        prompts = [{row.tobytes() for row in each.openings().clean} for each in splits]
        assert [len(each) for each in prompts] == [*found.counts().values()] == [4, 2, 2]
        assert len(set.union(*prompts)) == 8
        of_pair = [{*each.pair} for each in splits]
        assert sum(map(len, of_pair)) == len(set.union(*of_pair)) == 16
        # All rows of a pair begin with its prompt.
        for each in splits:
            alone = each.openings()
            length = int(alone.attention_mask.sum(1).max())
            np.testing.assert_array_equal(
                each.clean[:, :length], alone.clean[each.pair_of_row][:, :length]
            )


Answer = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.lists(Answer, min_size=1, max_size=4, unique=True)] * 2), min_size=1)
)
def test_rows_have_every_token_of_every_answer_once(pairs: list[Any]) -> None:
    readings = readings_of([{"answers": sides, "score": sides} for sides in pairs])
    targets = targets_of(readings)
    for number, (right, wrong) in enumerate(pairs):
        own = [i for i, each in enumerate(readings) if each.number == number]
        assert readings[own[0]].begun == ()
        assert len({readings[i].begun for i in own}) == len(own)
        for column, answer in enumerate([*right, *wrong]):
            sign, size = (1, len(right)) if column < len(right) else (-1, len(wrong))
            signs = targets.answers.signs[own, column]
            read = np.flatnonzero(signs)
            assert [*targets.answers.tokens[own, column][read]] == [*answer]
            assert {*signs[read]} == {sign}
            assert [len(readings[own[i]].begun) for i in read] == [*range(len(answer))]
            weights = targets.scores["score"].answers.signs[own, column][read]
            np.testing.assert_allclose(weights, sign / size)
        np.testing.assert_allclose(targets.of_pair[own].sum(0), 1, rtol=1e-6)
        # None is read for nothing.
        assert (np.abs(targets.answers.signs[own]).sum(1) > 0).all()


def test_what_cannot_be_scored_whole_is_named(mini: mg.Model, tmp_path: Path) -> None:
    def load(pairs: list[mg.PromptPair], **more: Any) -> mg.TaskData:
        return mg.from_pairs(mini.tokenizer, pairs, answer="whole", **more)

    for metric in ("best_difference", mg.METRICS["probability_difference"]):
        with pytest.raises(mg.MgnpError, match="'whole' is scored by the mean log-prob.*leave it"):
            load(pairs_of(), metric=metric)
    one, *others = pairs_of()
    same = dataclasses.replace(one, answers=[" Mary John"], wrong_answers=[" Emma John"])
    assert load([same, *others]).train.pairs == 4
    alike = copy.deepcopy(mini.tokenizer)
    alike.backend_tokenizer.normalizer = normalizers.Replace("Emma", "Mary")
    with pytest.raises(mg.MgnpError, match="are read alike: right and wrong answers at once"):
        mg.from_pairs(alike, [same, *others], answer="whole")
    unknown = dataclasses.replace(one, answers=[" Mary zebra"])
    with pytest.raises(mg.MgnpError, match="' Mary zebra' .* have known tokens alone"):
        load([unknown, *others])
    (left_out,) = load([unknown, *others], skip_bad=True).described()["left_out_because"]
    assert left_out == "an answer with an unknown token, or none"
    asked = dataclasses.replace(one, kl_over={"kl_names": [" Mary", " John"]})
    with pytest.raises(mg.MgnpError, match=r"kl_over \(kl_names\) .* leave it out"):
        load([asked])
    long = dataclasses.replace(one, answers=[" Mary" * mini.config.context])
    with pytest.raises(mg.MgnpError, match=r"tokens and \d+ of an answer, the model's context"):
        load([long, *others], limits=mini.config)
    with pytest.raises(mg.MgnpError, match="--answer whole goes with --data"):
        RunConfig(task="ioi", answer="whole")
    file = tmp_path / "mine.jsonl"
    with pytest.raises(mg.MgnpError, match="leave the controls out"):
        CompareConfig(data=file, answer="whole", controls=True)
    with pytest.raises(mg.MgnpError, match="answers of other prompts"):
        with_answers_of_others(load(pairs_of()), 0)


def test_what_lengths_decide_is_said_or_refused(mini: mg.Model) -> None:
    equal = from_pairs(mini, ((" {a} and {b}",), (" {b} and {a}",)))
    assert not [text for text in check_task(mini, equal.test) if "tokens" in text]
    longer = from_pairs(mini, ((" {a}",), (" {b} and {a}",)))
    (said,) = [text for text in check_task(mini, longer.test) if "tokens" in text]
    pairs = longer.test.pairs
    assert f"In {pairs} of {pairs} pairs" in said and f"({pairs} fewer, 0 more)" in said
    begins = "answer ' .*' begins ' .* and .*'.*never be the likelier"
    for answers in (((" {a}",), (" {a} and {b}",)), ((" {a} and {b}",), (" {a}",))):
        with pytest.raises(mg.MgnpError, match=begins):
            from_pairs(mini, answers)


def from_pairs(model: mg.Model, answers: Any) -> mg.TaskData:
    return mg.from_pairs(model.tokenizer, pairs_of(answers), answer="whole")
