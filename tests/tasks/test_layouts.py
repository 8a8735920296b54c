"""Files of other projects, and tables: read as what they mean, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.tasks.csv_rows import table_rows
from mgnp_jax.types import Tokenizer
from tests.tasks.test_files import NAMES, line, write

PAIR = "Then {} and {} spent the day at the park, and {} gave a book to"


def names(i: int) -> tuple[str, str]:
    return NAMES[i % 8], NAMES[(i + 1) % 8]


def ours(i: int) -> dict[str, Any]:
    a, b = names(i)
    return {
        "clean": PAIR.format(a, b, b),
        "corrupted": PAIR.format(a, b, a),
        "answers": [f" {a}"],
        "wrong_answers": [f" {b}"],
    }


def feature_circuits(i: int, tokenizer: Any) -> dict[str, Any]:
    row = ours(i)
    return {
        "clean_prefix": row["clean"],
        "patch_prefix": row["corrupted"],
        "clean_answer": row["answers"][0],
        "patch_answer": row["wrong_answers"][0],
        "case": "any",
    }


def token_ids(i: int, tokenizer: Any) -> dict[str, Any]:
    row = ours(i)
    right, wrong = (
        tokenizer(row[name][0], add_special_tokens=False)["input_ids"]
        for name in ("answers", "wrong_answers")
    )
    return {
        "clean": row["clean"],
        "corrupted": row["corrupted"],
        "correct_idx": right[0] if i % 2 else right,
        "incorrect_idx": wrong[0],
    }


def mib_ioi(i: int, tokenizer: Any) -> dict[str, Any]:
    a, b = names(i)
    return {
        "prompt": PAIR.format(a, b, b),
        "template": "any",
        "metadata": {"indirect_object": a, "subject": b, "random_c": "Lisa"},
        "abc_counterfactual": {"prompt": PAIR.format("Lisa", "Mark", "Anna")},
        "s2_io_flip_counterfactual": {"prompt": PAIR.format(a, b, a), "answerKey": 0},
    }


LAYOUTS = [feature_circuits, token_ids, mib_ioi]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["lines", "array"])
def test_rows_of_other_projects_are_read_as_ours(
    mini: mg.Model, tmp_path: Path, layout: Any, form: str
) -> None:
    wanted = mg.load_task(
        write(tmp_path / "ours.jsonl", [ours(i) for i in range(6)]), mini.tokenizer
    )
    rows = [layout(i, mini.tokenizer) for i in range(6)]
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(rows) if form == "array" else "\n".join(map(json.dumps, rows)))
    got = mg.load_task(file, mini.tokenizer)
    assert got.checksum() == wanted.checksum() and got.skipped == 0
    assert ("token ids" in got.note) == (layout is token_ids)
    assert "case" not in got.note and ("'abc_counterfactual'" in got.note) == (layout is mib_ioi)
    if layout is token_ids:
        assert "of the first prompt ' Mary' is right and ' John' wrong" in got.note


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        (feature_circuits, {"patch_answer": None}, "lacks 'patch_answer', which rows of feature-c"),
        (feature_circuits, {"clean_prefix": 3}, "field 'clean' must be text, got 3"),
        (feature_circuits, {"patch_prefix": "Then Emma"}, "clean has 17 tokens and corrupted 2"),
        (
            token_ids,
            {"correct_idx": 99_999},
            "'correct_idx' must be a token id below 1,227 .* 99999",
        ),
        (token_ids, {"incorrect_idx": True}, "'incorrect_idx' must be a token id .* True"),
        (token_ids, {"incorrect_idx": []}, "'incorrect_idx' must be a token id"),
        (token_ids, {"incorrect_idx": "x"}, "'incorrect_idx' must be a token id, got 'x'"),
        (mib_ioi, {"metadata": {"subject": "Mary"}}, "'metadata' must have indirect_object and"),
        (mib_ioi, {"s2_io_flip_counterfactual": {}}, "must be an object with a 'prompt', got {}"),
        (mib_ioi, {"prompt": ""}, "lacks 'prompt', which rows of MIB have"),
    ],
)
def test_a_row_that_is_none_of_its_project_is_named(
    mini: mg.Model, tmp_path: Path, layout: Any, changes: dict[str, Any], message: str
) -> None:
    rows = [layout(i, mini.tokenizer) | (changes if i == 2 else {}) for i in range(6)]
    file = write(tmp_path / "theirs.jsonl", rows)
    with pytest.raises(mg.MgnpError, match=message) as error:
        mg.load_task(file, mini.tokenizer)
    assert "theirs.jsonl:3: " in str(error.value)
    assert mg.load_task(file, mini.tokenizer, skip_bad=True).skipped == 1


def test_a_token_that_is_part_of_a_letter_is_no_answer(gpt2_tokenizer: Any, tmp_path: Path) -> None:
    part = gpt2_tokenizer.convert_tokens_to_ids("Ã")
    rows = [token_ids(i, gpt2_tokenizer) | ({"incorrect_idx": part} if i else {}) for i in range(2)]
    with pytest.raises(mg.MgnpError, match=rf"theirs.jsonl:2: token {part} .* read as another one"):
        mg.load_task(write(tmp_path / "theirs.jsonl", rows), gpt2_tokenizer)


def choice(i: int) -> dict[str, Any]:
    def of(labels: str, key: int) -> dict[str, Any]:
        text = "\n".join(f"{a}. {color}" for a, color in zip(labels, ("red", "blue", "green")))
        prompt = f"Question: What color is box {i}?\n{text}\nAnswer:"
        return {"prompt": prompt, "choices": {"label": [*labels]}, "answerKey": key}

    return of("ABC", i % 3) | {"symbol_counterfactual": of("XYZ", i % 3)}


def test_mibs_choices_are_scored_by_labels_without_a_space(
    gpt2_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = write(tmp_path / "mcqa.jsonl", [choice(i) for i in range(6)])
    test = mg.load_task(file, gpt2_tokenizer, all_test=True).test
    answers = gpt2_tokenizer.convert_ids_to_tokens(test.targets.answers.tokens[:3].reshape(-1))
    assert answers == ["A", "X", "B", "Y", "C", "Z"]
    bad = write(tmp_path / "bad.jsonl", [choice(0), choice(1) | {"answerKey": 9}])
    with pytest.raises(mg.MgnpError, match=r"bad.jsonl:2: 'choices' must .* and 9"):
        mg.load_task(bad, gpt2_tokenizer)


def test_mibs_arithmetic_is_read(gpt2_tokenizer: Tokenizer, tmp_path: Path) -> None:
    prompt = "Q: How much is {} plus {}? A: "
    rows: list[Any] = [
        {
            "prompt": prompt.format(10 + i, 20),
            "label": 30 + i,
            "operator": "+",
            "random_counterfactual": {"prompt": prompt.format(11, 50 + i), "label": 61 + i},
        }
        for i in range(5)
    ]
    rows.append(rows[0] | {"random_counterfactual": None})
    file = write(tmp_path / "sums.jsonl", rows)
    with pytest.raises(mg.MgnpError, match="sums.jsonl:6: lacks 'random_counterfactual'"):
        mg.load_task(file, gpt2_tokenizer)
    test = mg.load_task(file, gpt2_tokenizer, all_test=True, skip_bad=True).test
    answers = gpt2_tokenizer.convert_ids_to_tokens(test.targets.answers.tokens[0])
    assert answers == ["30", "61"]


def year(i: int, field: str, value: Any) -> dict[str, Any]:
    text = "The war lasted from the year {} to the year 17"
    return {"clean": text.format(1740 + i), "corrupted": text.format(1701), field: value}


@pytest.mark.parametrize(
    ("field", "full"), [("label", False), ("correct_idx", False), ("year", True)]
)
def test_years_are_those_of_greater_than(
    gpt2_tokenizer: Tokenizer, digit_tokenizer: Tokenizer, tmp_path: Path, field: str, full: bool
) -> None:
    rows = [year(i, field, f"{1740 + i}" if full else 40 + i) for i in range(5)]
    file = write(tmp_path / "gt.jsonl", rows)
    data = mg.load_task(file, gpt2_tokenizer, all_test=True, metric="probability_difference")
    answers = data.test.targets.answers
    assert (np.asarray(answers.signs) > 0).sum(1).tolist() == [59 - i for i in range(5)]
    assert (np.asarray(answers.signs) < 0).sum(1).tolist() == [40 + i for i in range(5)]
    assert "--metric probability_difference" in data.note
    tens = mg.load_task(file, digit_tokenizer, all_test=True).test.targets.answers
    assert (np.asarray(tens.signs) > 0).sum(1).tolist() == [6] * 5
    write(file, [*rows, year(5, field, 52), year(59, field, "1799" if full else 99)])
    with pytest.raises(mg.MgnpError) as error:
        mg.load_task(file, gpt2_tokenizer)
    assert f"gt.jsonl:6: field '{field}' must be the last two digits of a year" in str(error.value)
    assert "gt.jsonl:7: no later year than 1799" in str(error.value)


def table(rows: list[list[str]], delimiter: str = ",") -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & {*',;\t"\n'} else text

    return "".join(delimiter.join(map(cell, row)) + "\r\n" for row in rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_our_columns_is_read_as_ours(
    mini: mg.Model, tmp_path: Path, delimiter: str
) -> None:
    given = [line(i) for i in range(4)]
    given[1]["answers"] = [" Anna", " Adam"]
    wanted = mg.load_task(write(tmp_path / "ours.jsonl", given), mini.tokenizer)
    # As programs write it: an index without a name, one text as it is, several as a JSON list.
    rows = [["", "clean", "corrupted", "answers", "wrong_answers"]]
    for i, row in enumerate(given):
        answers = row["answers"]
        text = answers[0] if len(answers) == 1 else json.dumps(answers)
        rows.append([str(i), row["clean"], row["corrupted"], text, row["wrong_answers"][0]])
    file = tmp_path / "ours.csv"
    file.write_text(table(rows, delimiter), newline="")
    assert mg.load_task(file, mini.tokenizer).checksum() == wanted.checksum()


def test_eap_igs_table_is_read(mini: mg.Model, tmp_path: Path) -> None:
    given = [token_ids(i, mini.tokenizer) for i in range(4)]
    names = list(given[0])
    rows = [["", *names[:2], "corrupted_hard", *names[2:]]]
    rows += [
        [f"{7 * i}", *(str(r[n]) for n in names[:2]), "x", *(str(r[n]) for n in names[2:])]
        for i, r in enumerate(given)
    ]
    file = tmp_path / "theirs.csv"
    file.write_text(table(rows))
    data = mg.load_task(file, mini.tokenizer)
    wanted = mg.load_task(
        write(tmp_path / "ours.jsonl", [ours(i) for i in range(4)]), mini.tokenizer
    )
    assert data.checksum() == wanted.checksum() and "'corrupted_hard' (4 lines)" in data.note


def test_bad_rows_of_a_table_are_named_by_the_line_they_begin_on(
    mini: mg.Model, tmp_path: Path
) -> None:
    head = ["clean", "corrupted", "answers", "wrong_answers"]
    good = [[row[h] if h[0] == "c" else row[h][0] for h in head] for row in map(line, range(4))]
    two_lines = ["Then\nMary", *good[1][1:]]
    short, uneven = good[2][:3], [good[3][0], "Then Emma", *good[3][2:]]
    file = tmp_path / "mine.csv"
    file.write_text(table([head, good[0], two_lines, short, uneven, *good[1:]]))
    with pytest.raises(mg.MgnpError, match="3 bad lines") as error:
        mg.load_task(file, mini.tokenizer)
    for part in (
        "mine.csv:3: clean has",
        "mine.csv:5: has 3 cells where the header has 4",
        "mine.csv:6: clean has 17 tokens and corrupted 2",
    ):
        assert part in str(error.value)
    data = mg.load_task(file, mini.tokenizer, skip_bad=True)
    assert data.skipped == 3 and sum(data.counts().values()) == 4
    assert data.described()["left_out_because"]["not CSV"] == 1


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "hello\nthere\n", "", '{"a": 1, "b"\n', "[1, 2\n"])
def test_what_is_no_table_is_not_read_as_one(text: str) -> None:
    assert table_rows(text, "x") is None


def test_a_quote_without_end_is_said() -> None:
    rows = table_rows('a,b\n1,2\n"3,4\n5,6', "x.csv")
    assert rows and rows[0] == ("x.csv:2", {"a": "1", "b": "2"})
    assert rows[1][0] == "x.csv:3" and "not CSV (unexpected end of data)" in str(rows[1][1])


SEVERAL = {"answers": [" Mary John"], "wrong_answers": [" Emma Paul"]}


def test_the_first_token_of_longer_answers_is_scored_if_asked_for(
    mini: mg.Model, tmp_path: Path
) -> None:
    rows = [line(i, **(SEVERAL if i == 1 else {})) for i in range(4)]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(
        mg.MgnpError, match="one known token .*or its first one may .*--answer first"
    ):
        mg.load_task(file, mini.tokenizer)
    data = mg.load_task(file, mini.tokenizer, answer="first")
    rows[1] = line(1, answers=[" Mary"], wrong_answers=[" Emma"])
    single = mg.load_task(write(tmp_path / "one.jsonl", rows), mini.tokenizer)
    assert data.checksum() == single.checksum() and (data.answer, single.answer) == (
        "first",
        "single",
    )
    assert "Of 2 answers with several tokens the first is scored" in data.note
    assert single.note == ""
    rows[1] = line(1, answers=[" Mary John"], wrong_answers=[" Mary Paul"])
    with pytest.raises(mg.MgnpError, match="' Mary John' and ' Mary Paul' begin with one token"):
        mg.load_task(write(tmp_path / "same.jsonl", rows), mini.tokenizer, answer="first")


def test_what_cannot_be_scored_is_refused(mini: mg.Model) -> None:
    for load in (
        lambda: mg.from_pairs(mini.tokenizer, [], answer="last"),
        lambda: mg.load_task("ioi", mini.tokenizer, answer="last"),
    ):
        with pytest.raises(mg.MgnpError, match="one of single, first, w"):
            load()
