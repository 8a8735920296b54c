"""Runs that are stopped, killed or out of disk go on to the same circuit, bit by bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import chex
import pytest

import mgnp_jax as mg
from tests.experiments.processes import PRUNING, begin, ended, few_pairs, wait_for


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """A short run on a few prompts, all that is compiled kept."""
    file = few_pairs(tmp_path_factory.mktemp("prompts"))
    return ("--data", file, *PRUNING)


@pytest.fixture(scope="module")
def whole(
    asked: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """The same run, never interrupted, and its seconds once all is compiled."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("first", "second"):
        started = time.monotonic()
        assert ended((*asked, "--out", folder / name), folder / f"{name}.txt") == 0
    # What is gone on from has nodes left out.
    said = (folder / "second" / "metrics.jsonl").read_text().splitlines()
    costs = [record["step"] for record in map(json.loads, said) if "cost" in record]
    assert costs and min(costs) < 8
    return folder / "second", time.monotonic() - started


def figures(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    for name in ("seconds", "peak_mb"):
        del results["training"][name]
    return results


def check_same(folder: Path, whole: Path) -> None:
    got, expected = mg.load_circuit(folder), mg.load_circuit(whole)
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    assert figures(folder) == figures(whole)
    # No line twice, none lost.
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert {p.name for p in folder.iterdir()} == {p.name for p in whole.iterdir()}


def going_on(folder: Path) -> tuple[object, ...]:
    return ("--out", folder, *(("--resume",) if (folder / "config.json").exists() else ()))


def lines(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.full)])
@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_circuit(
    asked: tuple[object, ...], whole: tuple[Path, float], tmp_path: Path, kills: int
) -> None:
    expected, seconds = whole
    rng = random.Random(kills)
    runs, printed = 1, tmp_path / "printed.txt"
    folder = tmp_path / f"run-{runs}"
    while kills:
        process = begin((*asked, *going_on(folder)), printed)
        process.join(rng.uniform(0, seconds))
        if process.exitcode is None:
            process.kill()
            kills -= 1
        process.join()
        if process.exitcode == 0:
            check_same(folder, expected)
            runs += 1
            folder = tmp_path / f"run-{runs}"
        else:
            assert process.exitcode == -signal.SIGKILL, printed.read_text()
    states = [p.name for p in (folder / "resume").glob("step-*") if p.name[5:].isdigit()]
    searched = not (folder / "resume" / "circuit").exists()
    done = (folder / "results.json").exists()
    assert ended((*asked, *going_on(folder)), printed) == 0, printed.read_text()
    if states and searched and not done:
        assert f"Going on after step {int(max(states)[5:])}," in printed.read_text()
    check_same(folder, expected)


def halted(arguments: tuple[object, ...], folder: Path, printed: Path) -> Any:
    """A run that is stopped amid its steps; begun anew if it was too fast for that."""
    for _ in range(10):
        process = begin(arguments, printed)
        wait_for(lambda p=process: lines(folder) > 0 or p.exitcode is not None)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            # More than a signal needs to arrive; then nothing is written any more.
            time.sleep(0.1)
            if '"step": 8' not in (folder / "metrics.jsonl").read_text():
                return process
        process.kill()
        process.join()
        shutil.rmtree(folder)
    raise AssertionError(f"twelve steps are over before they can be stopped: {printed.read_text()}")


def test_a_signal_puts_the_state_aside_and_says_how_to_go_on(
    asked: tuple[object, ...], whole: tuple[Path, float], tmp_path: Path
) -> None:
    folder, printed, other = tmp_path / "run", tmp_path / "printed.txt", tmp_path / "other.txt"
    # Saves nothing by itself.
    calm = (*asked, "--save-every", 1000, "--out", folder)
    process = halted(calm, folder, printed)
    before = sorted(p.name for p in folder.rglob("*"))
    assert ended((*calm, "--resume"), other) == 2
    assert f"is in use by another run (process {process.pid})" in other.read_text()
    assert sorted(p.name for p in folder.rglob("*")) == before
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    text = " ".join(printed.read_text().split())
    assert process.exitcode == 143, text
    assert "Stopped; the state of step" in text and text.endswith("--resume")
    (state,) = (folder / "resume").iterdir()
    # A disk that is full leaves it as it is.
    assert ended((*asked, "--out", folder, "--resume"), printed, most=12_000) == 2
    text = printed.read_text()
    assert "error: " in text and "cannot be" in text and "Traceback" not in text
    assert [p.name for p in (folder / "resume").iterdir()] == [state.name]
    assert ended((*calm, "--resume"), printed) == 0, printed.read_text()
    assert f"Going on after step {int(state.name[5:])}," in printed.read_text()
    check_same(folder, whole[0])
