"""A user's own prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgnp_jax as mg

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
    with pytest.raises(mg.MgnpError, match=r"4 bad line\(s\)") as raised:
        mg.load_task(file, mini.tokenizer)
    assert re.findall(r"mine.jsonl:(\d+): ", str(raised.value)) == ["2", "3", "4", "6"]


def test_bad_lines_are_skipped_and_counted_when_asked(mini: mg.Model, tmp_path: Path) -> None:
    rows = [line(0), "{", line(1), line(2, answers=[" Mary John"]), line(0), line(3)]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="--skip-bad"):
        mg.load_task(file, mini.tokenizer)
    data = mg.load_task(file, mini.tokenizer, skip_bad=True)
    assert data.skipped == 3
    assert [problem.split(": ")[0] for problem in data.problems] == [
        f"mine.jsonl:{n}" for n in (2, 4, 5)
    ]
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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["clean", "corrupted", "answers", "wrong_answers", "split"]), inner
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(json_values.map(json.dumps) | st.text(max_size=20), max_size=4))
def test_no_file_makes_a_traceback_that_is_not_our_own(
    mini: mg.Model, tmp_path: Path, rows: list[str]
) -> None:
    (tmp_path / "fuzz.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(mg.MgnpError):
        mg.load_task(tmp_path / "fuzz.jsonl", mini.tokenizer)
    (tmp_path / "fuzz.json").write_text(json.dumps({"prompts": rows}), encoding="utf-8")
    with pytest.raises(mg.MgnpError):
        mg.load_task(tmp_path / "fuzz.json", mini.tokenizer, skip_bad=True)


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
    for part in ("1 problem(s) in 1 bad line(s)", "mine.jsonl:2", "equally long"):
        assert part in str(error.value)
