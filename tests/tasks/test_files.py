"""A user's own prompts."""

from __future__ import annotations

import codecs
import copy
import dataclasses
import gzip
import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.metrics.sanity import check_counts
from mgnp_jax.models.tokenizer import load_tokenizer
from mgnp_jax.tasks.json_rows import read_rows
from mgnp_jax.tasks.problems import Problem, summary
from tests import wordy

NAMES = ("Mary", "John", "Emma", "Paul", "Lisa", "Mark", "Anna", "Adam")


def line(i: int = 0, **changes: Any) -> dict[str, Any]:
    a, b, c = (NAMES[(i + k) % 8] for k in range(3))
    return {
        "clean": f"Then {a} and {b} spent the day at the park, and {b} gave a book to",
        "corrupted": f"Then {c} and {b} spent the day at the park, and {a} gave a book to",
        "answers": [f" {a}"],
        "wrong_answers": [f" {b}"],
    } | changes


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_a_file_is_split_in_half_and_quarters(mini: mg.Model, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", [line(i) for i in range(8)])
    data = mg.load_task(file, mini.tokenizer, seed=1)
    assert data.name == "mine"
    assert data.counts() == {"train": 4, "validation": 2, "test": 2}


def test_splits_named_in_the_file_are_kept(mini: mg.Model, tmp_path: Path) -> None:
    parts = ["test", "train", "train", "validation"]
    file = write(tmp_path / "mine.jsonl", [line(i, split=p) for i, p in enumerate(parts)])
    data = mg.load_task(file, mini.tokenizer)
    assert data.counts() == {"train": 2, "validation": 1, "test": 1}
    assert mini.tokenizer is not None
    assert " Mary and John" in mini.tokenizer.decode(data.test.clean[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", r"mine.jsonl:2: not JSON"),
        ("[1]", "mine.jsonl:2: wanted an object, got list"),
        (line(answers=" Mary"), "mine.jsonl:2: field 'answers' must be a list of texts"),
        (line(answers=[]), "mine.jsonl:2: field 'answers'"),
        ('{"clean": "Then', r"mine.jsonl:2: not JSON \(Unterminated string [a-z ]+at column 11\)"),
        (
            {"answer": 1, **{k: v for k, v in line().items() if k != "answers"}},
            r"'answers' must be a list of texts, and is missing \(not read: 'answer'\)",
        ),
        ({**line(), "clean": None}, "mine.jsonl:2: field 'clean' must be text, got None"),
        (line(wrong_answers=[" Mary"]), "right and wrong answers at once"),
        (line(0), "mine.jsonl:2: the same pair as mine.jsonl:1"),
        (line(split="dev"), "split 'dev'; wanted one of train, validation, test"),
        (line(1, corrupted="Then Emma gave a book to"), "mine.jsonl:2: clean has 17 tokens and"),
        (line(1, answers=[" Mary John"]), "mine.jsonl:2: answer ' Mary John' .* read as"),
    ],
)
def test_bad_lines_are_named(mini: mg.Model, tmp_path: Path, bad: Any, message: str) -> None:
    file = write(tmp_path / "mine.jsonl", [line(0), bad, line(2), line(3)])
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_task(file, mini.tokenizer)


def test_all_bad_lines_are_reported_at_once(mini: mg.Model, tmp_path: Path) -> None:
    # What only the tokenizer sees stands between what is not JSON, in the file's order.
    rows = [line(0), "{", line(1, answers=[" Mary John"]), line(0), line(2), "{"]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="4 problems in 4 bad lines") as raised:
        mg.load_task(file, mini.tokenizer)
    assert re.findall(r"mine.jsonl:(\d+): ", str(raised.value)) == ["2", "3", "4", "6"]


def test_bad_lines_are_skipped_and_counted_when_asked(mini: mg.Model, tmp_path: Path) -> None:
    rows = [line(0), "{", line(1), line(2, answers=[" Mary John"]), line(0), line(3)]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="--skip-bad"):
        mg.load_task(file, mini.tokenizer)
    data = mg.load_task(file, mini.tokenizer, skip_bad=True)
    assert data.skipped == 3
    assert [problem.origin for problem in data.problems] == [f"mine.jsonl:{n}" for n in (2, 4, 5)]
    assert data.described()["left_out_because"] == {
        "a pair given twice": 1,
        "an answer that is not one known token": 1,
        "not JSON": 1,
    }
    assert sum(data.counts().values()) == 3


def test_auto_circuits_layout_is_read(mini: mg.Model, tmp_path: Path) -> None:
    rows = []
    for i in range(4):
        row = line(i)
        row["corrupt"] = row.pop("corrupted")
        rows.append(row)
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps({"prompts": rows}, indent=1))
    ours = write(tmp_path / "ours.jsonl", [line(i) for i in range(4)])
    theirs = mg.load_task(file, mini.tokenizer)
    np.testing.assert_array_equal(
        theirs.train.clean, mg.load_task(ours, mini.tokenizer).train.clean
    )
    rows[2]["answers"] = "Mary"
    file.write_text(json.dumps({"prompts": rows}))
    with pytest.raises(mg.MgnpError, match=r"theirs.json: prompts\[2\]: field 'answers'"):
        mg.load_task(file, mini.tokenizer)


@pytest.mark.parametrize("rows", [[], [line()], [line(0, split="train"), line(1), line(2)]])
def test_too_few_or_mixed_lines_are_refused(
    mini: mg.Model, tmp_path: Path, rows: list[Any]
) -> None:
    with pytest.raises(mg.MgnpError, match="wanted"):
        mg.load_task(write(tmp_path / "mine.jsonl", rows), mini.tokenizer)


def test_several_corruptions_of_one_clean_prompt_stay_together(
    mini: mg.Model, tmp_path: Path
) -> None:
    def corrupted(c: str) -> str:
        return f"Then {c} and Paul spent the day at the park, and Adam gave a book to"

    # In one line, and line by line; one more answer for a prompt counts as a row of its own.
    rows = [line(i) for i in range(4)]
    rows[0]["corrupted"] = [rows[0]["corrupted"], corrupted("Lisa"), corrupted("Anna")]
    rows += [line(1, corrupted=corrupted(c)) for c in ("Emma", "Mary")]
    rows += [line(2, answers=[" Emma", " Anna"])]
    file = write(tmp_path / "mine.jsonl", rows)
    for seed in range(4):
        data = mg.load_task(file, mini.tokenizer, seed=seed)
        assert data.counts() == {"train": 2, "validation": 1, "test": 1}
        splits = [data.train, data.validation, data.test]
        assert sum(map(len, splits)) == 3 + 3 + 2 + 1
        clean = [{tuple(row) for row in split.clean.tolist()} for split in splits]
        assert not (clean[0] & clean[1] or clean[0] & clean[2] or clean[1] & clean[2])


@pytest.mark.parametrize("answer", ["single", "whole"])
@pytest.mark.parametrize("named", [False, True])
def test_the_first_clean_prompts_of_a_file_are_trained_on_with_all_their_pairs(
    mini: mg.Model, tmp_path: Path, named: bool, answer: str
) -> None:
    rows = [line(i) for i in range(8)]
    for row in rows[::2]:
        row["corrupted"] = [row["corrupted"], row["corrupted"].replace(" a ", " the ")]
    # One more answer for a prompt is a pair of its own.
    rows.append(line(1, answers=[" John", " Anna"]))
    if answer == "whole":
        # So that a pair has several rows.
        rows = [row | {"answers": [f"{text} and" for text in row["answers"]]} for row in rows]
    if named:
        parts = ["train", "train", "test", "validation", "train", "test", "train", "test", "train"]
        rows = [row | {"split": part} for row, part in zip(rows, parts)]
    file = write(tmp_path / "mine.jsonl", rows)

    def read(count: int | None) -> mg.TaskData:
        return mg.load_task(file, mini.tokenizer, 3, answer=answer, train_prompts=count)

    whole = read(None)
    assert whole.train_prompts is None and whole.counts()["train"] == 4
    order = list(dict.fromkeys(map(tuple, whole.train.openings().clean)))
    for count in (1, 3, 4):
        data = read(count)
        assert data.train_prompts == count
        np.testing.assert_array_equal(data.validation.clean, whole.validation.clean)
        np.testing.assert_array_equal(data.test.clean, whole.test.clean)
        clean = whole.train.openings().clean
        wanted = np.array([tuple(row) in order[:count] for row in clean])
        np.testing.assert_array_equal(data.train.openings().clean, clean[wanted])
        corrupted = whole.train.openings().corrupted[wanted]
        np.testing.assert_array_equal(data.train.openings().corrupted, corrupted)
        assert (data.checksum() == whole.checksum()) == (count == 4)
    for count in (-1, 0, 5):
        told = f"mine.jsonl has 4 clean prompts to train on, got --train-prompts {count}; wanted"
        with pytest.raises(mg.MgnpError, match=told):
            read(count)
    if not named:
        with pytest.raises(mg.MgnpError, match="has 0 clean prompts to train on"):
            mg.load_task(file, mini.tokenizer, answer=answer, all_test=True, train_prompts=1)


def test_pairs_of_one_clean_prompt_in_two_splits_are_named(mini: mg.Model, tmp_path: Path) -> None:
    parts = ["train", "validation", "test"]
    rows = [line(i, split=part) for i, part in enumerate(parts)]
    rows.append(line(0, corrupted=rows[0]["corrupted"].replace("book", "ring"), split="test"))
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="mine.jsonl:4: split 'test', but .* in 'train' at mine"):
        mg.load_task(file, mini.tokenizer)


def test_an_answer_given_twice_counts_once(mini: mg.Model, tmp_path: Path) -> None:
    once, twice = (
        mg.load_task(
            write(
                tmp_path / f"{n}.jsonl", [line(i, answers=[f" {NAMES[i]}"] * n) for i in range(3)]
            ),
            mini.tokenizer,
        )
        for n in (1, 2)
    )
    figures = [mg.evaluate(mini, mg.full_masks(mini.config), d.test) for d in (once, twice)]
    assert figures[0] == figures[1]


def test_pairs_from_python_are_a_task(mini: mg.Model) -> None:
    pairs = [mg.PromptPair(**line(i)) for i in range(8)]
    data = mg.from_pairs(mini.tokenizer, pairs, name="mine", metric="best_difference")
    assert data.name == "mine" and data.counts() == {"train": 4, "validation": 2, "test": 2}
    with pytest.raises(mg.MgnpError, match="metric must be one of logit_difference, .*'accuracy'"):
        mg.from_pairs(mini.tokenizer, pairs, metric="accuracy")
    for change, message in (
        ({"corrupted": []}, "must not be empty"),
        ({"split": "dev"}, "split 'dev'; wanted one of"),
        ({"answers": []}, "at least one each"),
        ({"wrong_answers": [" John"], "answers": [" John"]}, "right and wrong answers at once"),
        ({"kl_over": {"kl_names": [" John"]}}, "kl_over has {'kl_names': 1}"),
    ):
        bad = [*pairs, mg.PromptPair(**line(0, clean="Then", **change))]
        with pytest.raises(mg.MgnpError, match=rf"pairs\[8\]: .*{message}"):
            mg.from_pairs(mini.tokenizer, bad)
        kept = mg.from_pairs(mini.tokenizer, bad, skip_bad=True)
        assert kept.skipped == 1 and sum(kept.counts().values()) == 8
    with pytest.raises(mg.MgnpError, match="no tokenizer"):
        mg.from_pairs(None, pairs)
    pairs[3] = mg.PromptPair(**line(3, answers=[" Mary John"]))
    with pytest.raises(mg.MgnpError, match=r"pairs\[3\]: answer ' Mary John'"):
        mg.from_pairs(mini.tokenizer, pairs)


def test_a_bad_pair_of_a_repeated_prompt_is_named(mini: mg.Model, tmp_path: Path) -> None:
    again = line(0, corrupted="Then Emma gave a book to")
    file = write(tmp_path / "mine.jsonl", [line(0), again, line(1), line(2)])
    with pytest.raises(mg.MgnpError) as error:
        mg.load_task(file, mini.tokenizer)
    for part in ("1 problem in 1 bad line ", "mine.jsonl:2", "equally long"):
        assert part in str(error.value)


def test_a_token_given_twice_counts_once_whatever_its_texts(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = load_tokenizer(wordy.folder(tmp_path))
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("JOHN", "John")

    def of(*answers: str, **more: Any) -> list[mg.PromptPair]:
        return [
            mg.PromptPair(
                clean=f"the car {a}",
                corrupted="the car is",
                answers=answers,
                wrong_answers=["blue"],
                **more,
            )
            for a in ("red", "Mary", "the")
        ]

    once, twice = (mg.from_pairs(tokenizer, of(*a)) for a in (["John"], ["John", "JOHN"]))
    assert once.checksum() == twice.checksum()
    for more, message in (
        ({"answers": ["JOHN"], "wrong_answers": ["John"]}, "'JOHN' and 'John' are one token"),
        ({"kl_over": {"names": ["John", "JOHN"]}}, "kl_over 'names' has a token twice"),
    ):
        bad = [dataclasses.replace(pair, **more) for pair in of("John")]
        with pytest.raises(mg.MgnpError, match=rf"pairs\[0\]: .*{message}"):
            mg.from_pairs(tokenizer, bad)


def test_every_answer_that_is_read_must_be_one_token(mini: mg.Model) -> None:
    good = {"answers": [" Mary"], "wrong_answers": [" John"]}
    own = {"score": ([" Mary"], [" John"])}
    for changes, name in (
        ({"answers": [" Mary John"], "scores": own}, "answers"),
        ({"scores": {"other": ([" Mary John"], [" John"])}}, "other"),
        ({"kl_over": {"kl_names": [" Mary John"]}}, "kl_names"),
    ):
        pairs = [mg.PromptPair(**line(i, **(good | changes))) for i in range(3)]
        with pytest.raises(mg.MgnpError, match=rf"' Mary John' \({name}\) is read as"):
            mg.from_pairs(mini.tokenizer, pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": " Mary"}, "answers must be a list of texts, got ' Mary'"),
        ({"answers": [3]}, "must be text, got .*3"),
        ({"clean": None}, "must be text, got .*None"),
        ({"clean": "a" * 2**20 + "b"}, "a text has 1,048,577 characters"),
        ({"answers": ["\ud800"]}, "half of a surrogate pair"),
    ],
)
def test_pairs_from_python_of_the_wrong_form_are_named(
    mini: mg.Model, changes: dict, message: str
) -> None:
    pairs = [mg.PromptPair(**line(i, **(changes if i == 1 else {}))) for i in range(4)]
    with pytest.raises(mg.MgnpError, match=rf"pairs\[1\]: .*{message}"):
        mg.from_pairs(mini.tokenizer, pairs)


def test_pairs_of_one_origin_are_bad_one_by_one(mini: mg.Model) -> None:
    pairs = [mg.PromptPair(**line(i), origin="mine") for i in range(4)]
    pairs[1] = dataclasses.replace(pairs[1], answers=["%"])
    data = mg.from_pairs(mini.tokenizer, pairs, skip_bad=True)
    assert data.skipped == 1 and sum(data.counts().values()) == 3


def test_what_the_model_cannot_take_is_named_by_line_and_skipped(
    mini: mg.Model, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(mini.tokenizer)
    tokenizer.add_tokens([" Zed"])
    long = " and".join([" Mary"] * 40)
    rows = [line(i) for i in range(6)]
    rows[1] = line(1, clean=rows[1]["clean"] + long, corrupted=rows[1]["corrupted"] + long)
    rows[3] = line(3, answers=[" Zed"])
    rows[4] = line(4, clean=rows[4]["clean"].replace("Lisa", "Zed"))
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError) as error:
        mg.load_task(file, tokenizer, limits=mini.config)
    for part in (
        "in 3 bad line",
        "mine.jsonl:2: clean has 96 tokens, the model's context is 64",
        "mine.jsonl:4: answer ' Zed' (score) is token 1227, the model's last is 1226",
        "mine.jsonl:5: clean has ' Zed', token 1227",
    ):
        assert part in str(error.value), part
    data = mg.load_task(file, tokenizer, limits=mini.config, skip_bad=True)
    assert data.skipped == 3 and sum(data.counts().values()) == 3


def test_a_tokenizer_without_a_word_for_the_unknown_names_the_line(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(wordy.folder(tmp_path, unknown=None))
    assert tokenizer.unk_token_id is None
    rows = [line(0, clean=f"the car {a}", corrupted="the car is") for a in ("red", "Mary", "moon")]
    rows = [{**row, "answers": ["John"], "wrong_answers": ["blue"]} for row in rows]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="1 bad line"):
        mg.load_task(file, tokenizer)


def test_much_that_is_wrong_is_summed_up_by_cause_and_listed_in_a_file(
    mini: mg.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path / "cache"))
    split = [f" {a} {b}" for a in NAMES for b in NAMES]
    rows = [line(i % 8, answers=split) for i in range(1000)]
    file = write(tmp_path / "mine.jsonl", [*rows, "{"])
    for skip_bad in (False, True):
        with pytest.raises(mg.MgnpError) as error:
            mg.load_task(file, mini.tokenizer, skip_bad=skip_bad)
        told = str(error.value)
        assert len(told) < 10_000
        for part in (
            "1,000 × an answer that is not one known token, for example",
            "' Mary Mary' (score) is read as [' Mary', ' Mary']",
            "and 61 more",
            "1 × not JSON, for example",
        ):
            assert part in told, part
        assert told.count("(score)") == 3 * 3
        listed = (tmp_path / "cache" / "problems" / "mine.txt").read_text().splitlines()
        assert len(listed) == 1001 and str(tmp_path / "cache") in told
        assert listed[-1].startswith("mine.jsonl:1001: not JSON")
    assert "0 usable clean prompts" in told
    # A folder that cannot be written to is said, and nothing else is lost.
    monkeypatch.setenv("MGNP_JAX_CACHE", str(file))
    with pytest.raises(mg.MgnpError, match="1,000 × an answer.*(?s:.)*could not be written"):
        mg.load_task(file, mini.tokenizer)


def test_a_thousand_corruptions_of_one_prompt_stay_together(mini: mg.Model) -> None:
    clean = "Then Mary and John spent the day at the park, and John gave a book to"
    texts = [
        f"Then {a} and {b} spent the day at the park, and {c} gave a book to"
        for a, b, c in itertools.product((*NAMES[2:], "Alice", "Aaron", "Amy", "Albert"), repeat=3)
    ]
    many = mg.PromptPair(clean=clean, corrupted=texts, answers=[" Mary"], wrong_answers=[" John"])
    data = mg.from_pairs(mini.tokenizer, [many, *(mg.PromptPair(**line(i)) for i in (1, 2))])
    assert sorted(map(len, (data.train, data.validation, data.test))) == [1, 1, 1000]
    assert sum(data.counts().values()) == 3 and data.skipped == 0


GOOD = "\n".join(json.dumps(line(i)) for i in range(4))


@pytest.mark.parametrize(
    "raw",
    [
        codecs.BOM_UTF8 + GOOD.encode(),
        GOOD.encode("utf-16"),
        GOOD.replace("\n", "\r\n").encode(),
        f"\n\n{GOOD}\n\n".encode(),
        json.dumps([line(i) for i in range(4)], indent=1).encode(),
        ("[" + GOOD.replace("\n", ",\n") + "]").encode(),
    ],
    ids=["bom", "utf-16", "crlf", "blank-lines", "array", "array-of-lines"],
)
def test_files_as_other_programs_write_them_are_read(
    mini: mg.Model, tmp_path: Path, raw: bytes
) -> None:
    plain, other = tmp_path / "mine.jsonl", tmp_path / "other.jsonl"
    plain.write_text(GOOD)
    other.write_bytes(raw)
    wanted, got = (mg.load_task(file, mini.tokenizer) for file in (plain, other))
    assert got.checksum() == wanted.checksum() and got.skipped == 0 and got.note == ""


FIELDS = "clean, corrupted, answers, wrong_answers"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", f"is empty; wanted JSON Lines, one object a line with the fields {FIELDS}"),
        (b"\n \n", "is empty"),
        (b"clean,corrupted\na,b\nc,d\n", r"\(CSV\) with the columns 'clean', 'corrupted'; wanted"),
        (b"[1, 2, 3]", r"holds no objects: x.jsonl: \[0\] is 1"),
        (b"3", "holds no objects: x.jsonl:1 is 3"),
        (b"hello", "holds no JSON objects: x.jsonl:1 is not JSON"),
        (
            b'{"clean_prefix": "a", "patch_prefix": "b"}\n{"case": 1}',
            "holds 2 objects with the fields 'clean_prefix', 'patch_prefix', 'case': rename them",
        ),
        (b'{"data": []}', "holds one object with the fields 'data'"),
        (b'{"prompts": []}', "is empty"),
        (json.dumps({f"f{i}": i for i in range(30)}).encode(), "'f7' and 22 more"),
        (gzip.compress(GOOD.encode(), mtime=0), "compressed by gzip; unpack it"),
        (b"PAR1" + bytes(20), "is a Parquet table"),
        (b"\x80\x04\x95", "is not UTF-8 text .*save it as UTF-8"),
        (GOOD.encode("utf-16")[:-1], "is not UTF-8 text"),
        (bytes(100), "holds no JSON objects"),
        (b"[" * 100_000, "holds no JSON objects"),
        (b'{"prompts": [], "prompts": []}', "holds no JSON objects: .*'prompts' is there twice"),
    ],
)
def test_a_file_that_is_something_else_is_said_in_one_sentence(
    mini: mg.Model, tmp_path: Path, raw: bytes, message: str
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(raw)
    for skip_bad in (False, True):
        with pytest.raises(mg.MgnpError, match=message) as error:
            mg.load_task(file, mini.tokenizer, skip_bad=skip_bad)
        assert len(str(error.value)) < 600 and "\n" not in str(error.value)


def test_folders_pipes_and_huge_files_are_refused_unread(mini: mg.Model, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(2**30)
    for name, message in (
        ("", "that is a folder"),
        ("pipe.jsonl", "that is a device or pipe"),
        ("huge.jsonl", "has 1,073,741,824 bytes, and at most 268,435,456 are read"),
    ):
        with pytest.raises(mg.MgnpError, match=message):
            mg.load_task(tmp_path / name, mini.tokenizer)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"clean": "a", "clean": "b"}', "the field 'clean' is there twice"),
        (json.dumps(line(1)).replace('"Then', '"\\ud800Then', 1), "half of a surrogate pair"),
        (line(1, clean=float("nan")), "field 'clean' must be text, got nan"),
        (line(1, clean=7), "field 'clean' must be text, got 7"),
        (line(1, corrupted=[]), "field 'corrupted' must be text or a list of texts"),
        (line(1, answers=json.loads("[" * 500 + "]" * 500)), "field 'answers' must be a list"),
        ('{"clean": ' + "[" * 100_000, "not JSON"),
        ('{"clean": ' + "9" * 5000 + "}", "not JSON .*integer string"),
        (line(1, clean="the \0 car"), "mine.jsonl:2: clean has"),
        (line(1, clean="x" * 2_000_000), "a text has 2,000,000 characters"),
    ],
)
def test_odd_lines_are_named_among_good_ones(
    mini: mg.Model, tmp_path: Path, bad: Any, message: str
) -> None:
    file = write(tmp_path / "mine.jsonl", [line(0), bad, line(2), line(3)])
    with pytest.raises(mg.MgnpError, match=message) as error:
        mg.load_task(file, mini.tokenizer)
    assert "mine.jsonl:2: " in str(error.value) and len(str(error.value)) < 3_000
    assert mg.load_task(file, mini.tokenizer, skip_bad=True).skipped == 1


def test_fields_that_are_not_read_are_named(mini: mg.Model, tmp_path: Path) -> None:
    rows = [line(i, id=i, **({"Split": "train"} if i else {})) for i in range(4)]
    data = mg.load_task(write(tmp_path / "mine.jsonl", rows), mini.tokenizer)
    assert "mine.jsonl that are not read: 'Split' (3 lines), 'id' (4 lines); known" in data.note
    assert data.note in data.told()


def test_few_prompts_are_counted(mini: mg.Model, tmp_path: Path) -> None:
    few = mg.load_task(write(tmp_path / "few.jsonl", [line(i) for i in range(4)]), mini.tokenizer)
    (said,) = check_counts(few.counts())
    assert "only 2 training prompts and 1 validation prompt and 1 test prompt:" in said
    rows = [
        line(clean=f"Then {a} and {b} spent the day at the {place}, and {b} gave a book to")
        | {"answers": [f" {a}"], "wrong_answers": [f" {b}"]}
        for a, b in itertools.permutations(NAMES, 2)
        for place in ("park", "school")
    ]
    some = mg.load_task(write(tmp_path / "some.jsonl", rows[:40]), mini.tokenizer)
    (said,) = check_counts(some.counts())
    assert "only 10 validation prompts and 10 test prompts:" in said
    enough = mg.load_task(write(tmp_path / "enough.jsonl", rows[:80]), mini.tokenizer)
    assert check_counts(enough.counts()) == []


def test_a_file_of_other_prompts_is_all_test_prompts(mini: mg.Model, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", [line(i) for i in range(8)])
    data = mg.load_task(file, mini.tokenizer, all_test=True)
    assert data.counts() == {"train": 0, "validation": 0, "test": 8}
    assert mg.evaluate(mini, mg.full_masks(mini.config), data.test)["prompts"] == 8
    file = write(tmp_path / "one.jsonl", [line()])
    assert len(mg.load_task(file, mini.tokenizer, all_test=True).test) == 1
    parts = ["train", "test", "test"]
    file = write(tmp_path / "said.jsonl", [line(i, split=part) for i, part in enumerate(parts)])
    assert mg.load_task(file, mini.tokenizer, all_test=True).counts()["test"] == 2
    file = write(tmp_path / "none.jsonl", [line(i, split="train") for i in range(3)])
    with pytest.raises(mg.MgnpError, match="none.jsonl has splits of 3 / 0 / 0"):
        mg.load_task(file, mini.tokenizer, all_test=True)


def test_problems_of_a_file_whose_name_is_no_text_are_listed(tmp_path: Path) -> None:
    found = [Problem(f"caf\udce9.jsonl:{line}", "not JSON", "it is not") for line in range(30)]
    told = summary(found, "caf\udce9", tmp_path / "left-out.txt")
    assert told.endswith("left-out.txt: 30 problems)")
    assert (tmp_path / "left-out.txt").read_text().startswith("caf\\udce9.jsonl:0: it is not\n")


def test_a_list_that_a_killed_run_left_half_written_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "left-out.txt.part").touch()
    summary([Problem("mine.jsonl:1", "not JSON", "it is not")], "mine", tmp_path / "left-out.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["left-out.txt"]


def test_a_field_given_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(20_000)]
    file = tmp_path / "wide.jsonl"
    file.write_text("{" + ", ".join(f'"{name}": 1' for name in [*names, "f19999"]) + "}")
    start = time.monotonic()
    with pytest.raises(mg.MgnpError, match="the field 'f19999' is there twice"):
        read_rows(file)
    assert time.monotonic() - start < 2
