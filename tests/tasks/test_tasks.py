"""Built-in tasks: counts, disjoint splits, pairs of equal length, for several tokenizers."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.tasks import TASKS, gendered_pronouns, greater_than, ioi, words
from mgnp_jax.tasks.checks import encode_pairs
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.prefix import prefix_of
from mgnp_jax.tasks.task import EXTRA_CORRUPTIONS, Counts, build, distinct_pairs
from mgnp_jax.types import Tokenizer


def texts(tokenizer: Any, batch: mg.Batch, field: str) -> list[str]:
    lengths = batch.attention_mask.sum(-1)
    return [tokenizer.decode(row[:n]) for row, n in zip(getattr(batch, field), lengths)]


def test_ioi_has_thirty_templates_fifteen_for_each_order() -> None:
    assert len(set(ioi.TEMPLATES)) == 30
    orders = [order for _, order in ioi.TEMPLATES]
    assert orders.count(ioi.SUBJECT_FIRST) == orders.count(ioi.SUBJECT_SECOND) == 15
    prompts = [
        ioi.fill((ioi.FRAMES[0], order), "Mary", "John", "park", "book")
        for order in (ioi.SUBJECT_FIRST, ioi.SUBJECT_SECOND)
    ]
    assert "John and Mary" in prompts[0] and "Mary and John" in prompts[1]
    assert all(p.count("John") == 2 and p.count("Mary") == 1 for p in prompts)


@pytest.mark.parametrize(
    ("task", "counts"),
    [("ioi", (200, 200, 12_256)), ("gt", (150, 150, 12_240)), ("gp", (150, 150, 378))],
)
def test_splits_have_the_papers_counts_and_share_no_prompt(
    mini: mg.Model, task: str, counts: tuple[int, int, int]
) -> None:
    data = mg.load_task(task, mini.tokenizer, seed=0)
    assert tuple(data.counts().values()) == counts
    splits = [data.train, data.validation, data.test]
    clean = [texts(mini.tokenizer, split, "clean") for split in splits]
    everything = [text for split in clean for text in split]
    assert len(set(everything)) == sum(counts)
    for split in splits:
        chex.assert_equal_shape([split.clean, split.corrupted, split.attention_mask])
        # Right-padded: real tokens first.
        assert (np.diff(split.attention_mask.astype(int), axis=1) <= 0).all()
        assert (split.clean != split.corrupted).any(-1).all()


def test_same_seed_same_prompts(mini: mg.Model) -> None:
    task = ioi.IOI.__class__(
        name="ioi",
        counts=Counts(train=5, validation=5, test=5),
        pairs=ioi.pairs,
    )
    first, again = (build(task, mini.tokenizer, 3) for _ in range(2))
    chex.assert_trees_all_equal(first.train, again.train)
    assert (build(task, mini.tokenizer, 4).train.clean.shape != first.train.clean.shape) or (
        build(task, mini.tokenizer, 4).train.clean != first.train.clean
    ).any()


def test_ioi_answers_and_corruption(mini: mg.Model, mini_ioi: mg.TaskData) -> None:
    tokenizer = mini.tokenizer
    assert tokenizer is not None
    names = {f" {n}" for n in ioi.GIRLS + ioi.BOYS}
    batch = mini_ioi.validation
    clean, corrupted = (texts(tokenizer, batch, f) for f in ("clean", "corrupted"))
    rows = zip(clean, corrupted, batch.targets.scores["score"].answers.tokens)
    for a, b, (right, wrong) in rows:
        io, subject = tokenizer.decode([right]), tokenizer.decode([wrong])
        assert a.count(subject) == 2 and a.count(io) == 1
        in_clean = {n for n in names if f"{n} " in f"{a} " or f"{n}," in a}
        in_corrupted = {n for n in names if f"{n} " in f"{b} " or f"{n}," in b}
        assert len(in_clean) == 2 and len(in_corrupted) == 3
        assert not in_clean & in_corrupted
    np.testing.assert_array_equal(
        batch.targets.scores["score"].answers.signs, [[1.0, -1.0]] * len(batch)
    )


def test_greater_than_scores_follow_equation_9(mini: mg.Model) -> None:
    tokenizer = mini.tokenizer
    assert tokenizer is not None
    pair = next(greater_than.pairs(np.random.default_rng(1), tokenizer))
    year = next(word for word in pair.clean.split() if word[:4].isdigit() and len(word) >= 4)
    start = int(year[2:4])
    score, exact = ([set(map(int, s)) for s in pair.sets[n]] for n in ("score", "prob_diff"))
    assert score == [set(range(start + 11, 100)), set(range(0, max(0, start - 10)))]
    assert exact == [set(range(start + 1, 100)), set(range(0, start))]
    # Right and wrong in the sense of accuracy are those of the exact sums.
    assert (pair.answers, pair.wrong_answers) == pair.sets["prob_diff"]
    assert f"{year[:2]}01" in pair.corrupted
    assert str(pair.corrupted).replace(f"{year[:2]}01", year[:4]) == pair.clean


def test_pronouns_are_balanced_and_corrupted_by_the_other_gender(mini: mg.Model) -> None:
    data = mg.load_task("gp", mini.tokenizer, seed=0)
    tokenizer = mini.tokenizer
    assert tokenizer is not None
    names = gendered_pronouns.popular_names()
    for part in (data.train, data.validation, data.test):
        right = [tokenizer.decode([t]) for t in part.targets.scores["score"].answers.tokens[:, 0]]
        assert right.count(" he") == right.count(" she") == len(part) // 2
        clean, corrupted = (texts(tokenizer, part, field) for field in ("clean", "corrupted"))
        for pronoun, a, b in zip(right, clean, corrupted):
            other = {" she": " he", " he": " she"}[pronoun]
            assert set(re.findall(r"\w+", a)) & set(names[pronoun])
            assert set(re.findall(r"\w+", b)) & set(names[other])


@pytest.mark.parametrize("name", ["ioi", "gp"])
def test_a_training_prompt_comes_with_several_corrupted_ones(mini: mg.Model, name: str) -> None:
    assert mini.tokenizer is not None
    task = dataclasses.replace(mg.TASKS[name], counts=Counts(train=20, validation=20, test=20))
    data = build(task, mini.tokenizer, 0)
    assert data.counts() == {"train": 20, "validation": 20, "test": 20}
    assert [len(s) for s in (data.train, data.validation, data.test)] == [
        20 * (1 + EXTRA_CORRUPTIONS),
        20,
        20,
    ]
    clean, corrupted = (texts(mini.tokenizer, data.train, f) for f in ("clean", "corrupted"))
    assert len(set(zip(clean, corrupted))) == len(data.train)
    assert {clean.count(text) for text in clean} == {1 + EXTRA_CORRUPTIONS}
    pairs = distinct_pairs(task, mini.tokenizer, 0)
    assert {pair.corrupted for pair in pairs[:20]} < set(corrupted)
    # They change nothing else.
    alone = build(task, mini.tokenizer, 0, extra_corruptions=0)
    assert len(alone.train) == 20
    chex.assert_trees_all_equal(data.validation, alone.validation)
    chex.assert_trees_all_equal(data.train.take(slice(-20, None)), alone.train)
    if name == "ioi":
        names = {*ioi.GIRLS, *ioi.BOYS}
        for a, b in zip(clean, corrupted):
            in_a, in_b = (set(re.findall(r"\w+", text)) & names for text in (a, b))
            assert len(in_a) == 2 and len(in_b) == 3 and not in_a & in_b


def test_names_are_the_thousand_most_popular_of_each_sex_in_2000() -> None:
    file = Path(gendered_pronouns.__file__).parent / "assets" / "names-2000.csv"
    rows = [row.split(",") for row in file.read_text().splitlines()[1:]]
    for sex, first in (("f", "Emily"), ("m", "Jacob")):
        counts = [int(count) for _, of, count, _ in rows if of == sex]
        assert len(counts) == 1_000 and counts == sorted(counts, reverse=True)
        assert next(name for name, of, *_ in rows if of == sex) == first
    names = gendered_pronouns.popular_names()
    girls, boys = set(names[" she"]), set(names[" he"])
    assert not girls & boys and not {"Jordan", "Taylor", "Casey"} & (girls | boys)
    assert "Ashley" in girls and "Ryan" in boys


def test_a_name_comes_again_only_after_all_others_and_in_another_template(
    mini: mg.Model,
) -> None:
    assert mini.tokenizer is not None
    names = gendered_pronouns.usable_names(mini.tokenizer)[" she"]
    found = list(gendered_pronouns.pairs(np.random.default_rng(0), mini.tokenizer))
    assert len({pair.clean for pair in found}) == len(found)
    girls = [pair.clean for pair in found if " she" in pair.answers]
    used = [re.findall(r"\w+", clean) for clean in girls[: len(names)]]
    assert sorted(word for words in used for word in words if word in names) == sorted(names)


def test_a_task_says_when_names_must_come_again(mini: mg.Model) -> None:
    data = mg.load_task("gp", mini.tokenizer, seed=0)
    assert re.match(
        r"Only \d+ girls' and as many boys' names .* 339 of each .* other templates", data.note
    )
    assert mg.load_task("gt", mini.tokenizer, seed=0).note == ""


@pytest.mark.parametrize("name", sorted(mg.TASKS))
@pytest.mark.parametrize("which", ["gpt2_tokenizer", "digit_tokenizer"])
def test_tasks_work_for_byte_level_tokenizers(
    request: pytest.FixtureRequest, which: str, name: str
) -> None:
    tokenizer: Any = request.getfixturevalue(which)
    task = dataclasses.replace(mg.TASKS[name], counts=Counts(train=100, validation=100, test=100))
    pairs = distinct_pairs(task, tokenizer, 0)
    batch = encode_pairs(tokenizer, pairs, logit_difference, prefix_of(tokenizer))
    assert len(batch) == 300
    assert texts(tokenizer, batch, "clean") == [pair.clean for pair in pairs]
    assert texts(tokenizer, batch, "corrupted") == [pair.corrupted for pair in pairs]
    tokens = batch.targets.scores["score"].answers.tokens[:, 0]
    first = tokenizer.convert_ids_to_tokens(tokens.tolist())
    bare = name.startswith("gt") or (
        which == "digit_tokenizer" and name in ("addition", "subtraction")
    )
    assert all(answer.startswith("Ġ") != bare for answer in first)


def test_greater_than_of_a_digit_tokenizer_is_scored_on_the_tens_digit(
    digit_tokenizer: Tokenizer,
) -> None:
    tasks = itertools.islice(TASKS["gt"].pairs(np.random.default_rng(0), digit_tokenizer), 200)
    for pair in tasks:
        year = next(word for word in pair.clean.split() if word[:4].isdigit())
        tens = int(year[2])
        assert 1 <= tens <= 8
        digits = tuple("0123456789")
        assert pair.sets["tens_prob_diff"] == pair.sets["score"] == (digits[tens:], digits[:tens])
        assert pair.kl_over["kl_tens"] == digits
    data = mg.load_task("gt", digit_tokenizer)
    assert data.train.targets.kl_over["kl_tens"].shape == (150, 10)


def test_greater_than_scores_of_one_year_by_hand() -> None:
    scored = greater_than.two_digits(43)
    later, earlier = scored.scores["score"]
    assert list(later) == [f"{y}" for y in range(54, 100)]
    assert list(earlier) == [f"{y:02d}" for y in range(33)]
    both = {*scored.answers, *scored.wrong_answers}
    assert sorted(both ^ set(scored.kl_over["kl_years"])) == ["43"]
    assert "44" in scored.answers and "42" in scored.wrong_answers


def test_other_start_years_may_corrupt(gpt2_tokenizer: Tokenizer) -> None:
    for pair in itertools.islice(
        TASKS["gt-other"].pairs(np.random.default_rng(0), gpt2_tokenizer), 200
    ):
        a, b = (re.findall(r"\d{4}", text)[0] for text in (pair.clean, str(pair.corrupted)))
        assert a[:2] == b[:2] and a != b
    mixed = {
        re.findall(r"\d{4}", str(p.corrupted))[0][2:]
        for p in itertools.islice(
            TASKS["gt-other"].pairs(np.random.default_rng(0), gpt2_tokenizer), 50
        )
    }
    assert len(mixed) > 10


def test_greater_than_refuses_a_tokenizer_without_digits() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["0", *words.EVENTS])}
    spelt = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    spelt.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(mg.MgnpError, match="writes no year.*gpt2-mini"):
        mg.load_task("gt", PreTrainedTokenizerFast(tokenizer_object=spelt))


def pair(**changes: Any) -> PromptPair:
    given = {
        "clean": "Then Mary and John spent the day at the park, and John gave a book to",
        "corrupted": "Then Emma and Paul spent the day at the park, and Lisa gave a book to",
        "answers": [" Mary"],
        "wrong_answers": [" John"],
        "origin": "mine.jsonl:4",
    }
    return PromptPair(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"corrupted": "Then Emma spent the day at the park, and Lisa gave a book to"},
            r"mine.jsonl:4: clean has 17 tokens and corrupted 15.*equally long",
        ),
        ({"corrupted": pair().clean}, "are the same tokens"),
        ({"clean": pair().clean.replace("park", "moon")}, "does not know; all it reads is .*Mary"),
        ({"clean": pair().clean.replace("Then", "Zzz")}, "clean has words .* does not know"),
        (
            {"answers": [" Mary John"]},
            r"answer ' Mary John' \(score\) is read as .*Mary.*John.*one known token",
        ),
        (
            {"answers": ["Mary"]},
            "answer 'Mary' .*leading space",
        ),
    ],
    ids=["lengths", "identical", "unknown", "unknown-first", "two-tokens", "no-space"],
)
def test_unusable_pairs_are_named(mini: mg.Model, changes: dict, message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        encode_pairs(
            mini.tokenizer, [pair(), pair(**changes)], logit_difference, prefix_of(mini.tokenizer)
        )


def test_every_unusable_pair_is_reported_at_once(
    mini: mg.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path))
    bad = [pair(corrupted=pair().clean, origin=f"mine.jsonl:{i}") for i in range(30)]
    with pytest.raises(mg.MgnpError) as error:
        encode_pairs(mini.tokenizer, bad, logit_difference, prefix_of(mini.tokenizer))
    told = str(error.value)
    assert "30 problems in" in told and "30 × clean and corrupted are the same tokens" in told
    assert "mine.jsonl:2:" in told and "mine.jsonl:3:" not in told


def test_unknown_task_and_missing_tokenizer_are_refused(mini: mg.Model) -> None:
    with pytest.raises(
        mg.MgnpError, match="unknown task 'antonyms': wanted one of ioi, gt, gp, gt-other, ioi-swap"
    ):
        mg.load_task("antonyms", mini.tokenizer)
    with pytest.raises(mg.MgnpError, match="no tokenizer.*lacks tokenizer.json"):
        mg.load_task("ioi", None)


def test_too_few_words_are_refused(mini: mg.Model) -> None:
    import copy

    poor = copy.deepcopy(mini.tokenizer)
    assert poor is not None
    from tokenizers import Tokenizer, models

    vocabulary = {"<|unk|>": 0, " Mary": 1}
    poor.backend_tokenizer.model = models.WordLevel(vocabulary, unk_token="<|unk|>")
    assert isinstance(poor.backend_tokenizer, Tokenizer)
    with pytest.raises(mg.MgnpError, match=r"only 1 of \d+ first names .* at least 10"):
        mg.load_task("ioi", poor)


@pytest.mark.parametrize("count", [-1, 10**12])
def test_more_corruptions_than_memory_holds_are_refused(mini: mg.Model, count: int) -> None:
    with pytest.raises(mg.MgnpError, match="extra_corruptions must be from 0 to 1,000, got"):
        mg.load_task("ioi", mini.tokenizer, extra_corruptions=count)


@pytest.mark.parametrize("name", ["gp", "gt", "ioi"])
def test_held_out_prompts_are_the_same_however_many_are_trained_on(
    mini: mg.Model, name: str
) -> None:
    task = dataclasses.replace(mg.TASKS[name], counts=Counts(train=20, validation=20, test=60))
    own = build(task, mini.tokenizer, 0)
    assert own.train_prompts is None
    held_out = {row for part in (own.validation, own.test) for row in map(tuple, part.clean)}
    most = build(task, mini.tokenizer, 0, train_prompts=45)
    for count in (1, 20, 45):
        data = build(task, mini.tokenizer, 0, train_prompts=count)
        assert data.counts() == {"train": count, "validation": 20, "test": 60}
        assert data.train_prompts == count
        chex.assert_trees_all_equal(data.validation, own.validation)
        chex.assert_trees_all_equal(data.test, own.test)
        assert not held_out & set(map(tuple, data.train.clean))
        assert len(data.train) == count * (1 if name == "gt" else 1 + EXTRA_CORRUPTIONS)
        # Each number's prompts are the first of a larger one's.
        alone = (each.train.take(slice(-n, None)) for each, n in ((data, count), (most, 45)))
        first, longer = alone
        chex.assert_trees_all_equal(first, longer.take(slice(count)))
        assert (data.checksum() == own.checksum()) == (count == 20)


def test_a_count_of_training_prompts_that_is_the_tasks_own_changes_nothing(mini: mg.Model) -> None:
    data, same, more = (
        mg.load_task("gp", mini.tokenizer, train_prompts=count) for count in (None, 150, 160)
    )
    assert data.checksum() == same.checksum() != more.checksum()
    with pytest.raises(mg.MgnpError, match=r"knows words for 396 prompts .*--train-prompts 397;"):
        mg.load_task("gp", mini.tokenizer, train_prompts=397)
    assert mg.load_task("gp", mini.tokenizer, train_prompts=396).counts()["train"] == 396


@pytest.mark.parametrize(
    ("count", "extra", "most"),
    [*((n, 3, "100,000") for n in (0, -1, 100_001, 10**12)), (400, 1_000, "399")],
)
def test_more_training_prompts_than_memory_holds_are_refused(
    mini: mg.Model, count: int, extra: int, most: str
) -> None:
    told = f"train_prompts must be from 1 to {most} with {extra:,} extra_corruptions, got {count:,}"
    with pytest.raises(mg.MgnpError, match=told):
        mg.load_task("ioi", mini.tokenizer, extra_corruptions=extra, train_prompts=count)
