"""Runs on a user's prompts whose answers have several tokens, scored whole."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import chex
import jax
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.evidence import load_evidence
from mgnp_jax.runs.states import States
from tests.experiments.test_commands import PRUNING, call_here

NAMES = ("Mary", "John", "Emma", "Paul", "Lisa", "Mark", "Anna", "Adam")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with right and wrong answers of one to three tokens, some of which begin alike."""
    frame = "Then {} and {} spent the day at the park, and {} gave a book to"
    rows = [
        {
            "clean": frame.format(a, b, b),
            "corrupted": [frame.format(c, d, d), frame.format(d, c, c)],
            "answers": [f" {a} and {b}", f" {a} and the"],
            "wrong_answers": [f" {b}", f" {b} and {a}"],
        }
        for a, b, c, d in zip(NAMES, *(NAMES[k:] + NAMES[:k] for k in (1, 2, 3)))
    ]
    path = tmp_path_factory.mktemp("prompts") / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def run_folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "mine"
    asked = ("--data", file, "--answer", "whole", "--out", out, "--steps", 6, *PRUNING)
    assert call_here("experiments.run", *asked) == 0
    return out


def test_a_run_is_measured_again_alike(
    run_folder: Path, file: Path, mini: mg.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((run_folder / "results.json").read_text())
    assert results["answer"] == "whole"
    assert "Answers are scored whole: " in (run_folder / "README.md").read_text()
    # 8 clean prompts, each with two corrupted ones: pairs are counted, and not the rows of them.
    assert results["data"] == {"train": 4, "validation": 2, "test": 2, "left_out": 0}
    assert results["circuit"]["prompts"] == 4 and results["train"]["prompts"] == 8
    circuit = mg.load_circuit(run_folder)
    data = mg.load_task(file, mini.tokenizer, answer="whole")
    assert circuit.metadata["origin"]["answer"] == data.answer == "whole"
    assert data.checksum() == circuit.metadata["data_checksum"]
    assert (len(data.test), data.test.pairs) == (20, 4)
    figures = mg.evaluate(mini, circuit, data.test)
    for name in ("score", "accuracy", "kl", "exact_match"):
        assert figures[name] == pytest.approx(results["circuit"][name], abs=1e-6), name
    assert figures["base_score"] == pytest.approx(results["base"]["score"], abs=1e-6)
    for again in ((), ("--data", file), ("--test-prompts", 3)):
        assert call_here("experiments.evaluate", "--circuit", run_folder, *again) == 0
        printed = " ".join(capsys.readouterr().out.split())
        count = 3 if "--test-prompts" in again else 4
        assert f"measured on {count} test prompts" in printed
        assert "16 pairs in 80 rows" in printed
        assert ("Saved" in printed) == (count == 4)
    again = ("--circuit", run_folder, "--data", file, "--answer", "first")
    assert call_here("experiments.evaluate", *again) == 0
    assert "Other prompts, weights or metric" in capsys.readouterr().out
    # Another task has answers of one token.
    again = ("--circuit", run_folder, "--task", "gp", "--test-prompts", 5)
    assert call_here("experiments.evaluate", *again) == 0


@pytest.mark.full
def test_what_its_nodes_do_is_shown(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_here("experiments.show", "--circuit", run_folder) == 0, capsys.readouterr().err
    found = load_evidence(run_folder)
    results = json.loads((run_folder / "results.json").read_text())
    assert found.prompts_used == 4
    for name in ("score", "accuracy", "kl"):
        got = found.scores["circuit"][name]
        assert got == pytest.approx(results["circuit"][name], abs=1e-3), name


def test_methods_are_compared(file: Path, tmp_path: Path) -> None:
    asked = ("--data", file, "--answer", "whole", "--methods", "nap", "--reference", "nap")
    asked += ("--seeds", 1, "--out", tmp_path / "all")
    assert call_here("experiments.compare", *asked) == 0
    with (tmp_path / "all" / "curves.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["method"] == "nap"]
    # All of it is the model.
    assert float(rows[-1]["keep"]) == 1 and float(rows[-1]["kl"]) < 1e-5
    assert float(rows[-1]["faithfulness"]) == pytest.approx(1, abs=1e-4)


def test_a_search_that_was_stopped_goes_on(file: Path, mini: mg.Model, tmp_path: Path) -> None:
    data = mg.load_task(file, mini.tokenizer, answer="whole")
    config = mg.DiscoverConfig(steps=4, batch_size=6, validate_every=2, log_every=1)

    def find(folder: Path, stop_after: int | None = None) -> mg.Circuit:
        with contextlib.closing(States(folder, every=1e6)) as states:

            def on_record(record: Any) -> None:
                if stop_after is not None and record.get("step", 0) >= stop_after:
                    states._stop.asked = 2

            key = jax.random.key(0)
            return mg.discover(key, mini, data, config, on_record=on_record, saves=states)

    expected = find(tmp_path / "never")
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "once", stop_after=1)
    got = find(tmp_path / "once")
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    assert got.metadata["validation"] == expected.metadata["validation"]
    first = mg.load_task(file, mini.tokenizer, answer="first")
    with (
        contextlib.closing(States(tmp_path / "once")) as states,
        pytest.raises(mg.MgnpError, match="of a search with another"),
    ):
        mg.discover(jax.random.key(0), mini, first, config, saves=states)
