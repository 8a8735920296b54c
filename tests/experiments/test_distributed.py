"""Two real processes that share a run: one circuit, one writer, one end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest

import mgnp_jax as mg
from tests.experiments.processes import PRUNING, begin, few_pairs, wait_for
from tests.tiny import log_alpha

STEPS = ("--steps", 60, "--no-compact")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """A run on a few prompts, whose programs are few."""
    return ("--data", few_pairs(tmp_path_factory.mktemp("prompts")), *PRUNING, *STEPS)


def both(
    arguments: tuple[object, ...],
    folder: Path,
    *own: tuple[object, ...],
    wheres: Sequence[Path | None] = (None, None),
) -> list[Any]:
    """Two processes of one run; each prints to a file of its own in the folder.

    Args:
      arguments: of both.
      folder: for what they print.
      *own: further arguments of each.
      wheres: their working folders.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    found = ("--distributed", "--coordinator", address, "--processes", 2, "--process")
    own = own or ((), ())
    return [
        begin((*arguments, *more, *found, index), folder / f"{index}.txt", where=where)
        for index, (more, where) in enumerate(zip(own, wheres))
    ]


def statuses(processes: list[Any], seconds: float = 200) -> list[int | None]:
    """How they end; what does not is killed."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(until - time.monotonic(), 0))
    found = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return found


def said(folder: Path, index: int) -> str:
    """What a process printed, as one line, without what libraries print."""
    lines = (folder / f"{index}.txt").read_text().splitlines()
    return " ".join(" ".join(line for line in lines if not line.startswith("[Gloo]")).split())


def lines(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def figures(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    for name in ("seconds", "peak_mb"):
        del results["training"][name]
    return results


@pytest.fixture(scope="module")
def whole(asked: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of both, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert statuses(both((*asked, "--out", folder / "run"), folder)) == [0, 0], said(folder, 0)
    return folder


@pytest.mark.slow
def test_the_circuit_is_that_of_one_process_with_two_devices(
    asked: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    alone, printed = tmp_path / "alone", tmp_path / "printed.txt"
    process = begin((*asked, "--devices", 2, "--out", alone), printed, devices=2)
    assert statuses([process]) == [0], printed.read_text()
    got, expected = mg.load_circuit(whole / "run"), mg.load_circuit(alone)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    for name, leaf in log_alpha(expected).items():
        np.testing.assert_allclose(log_alpha(got)[name], leaf, atol=1e-5, err_msg=name)
    assert {p.name for p in (whole / "run").iterdir()} == {p.name for p in alone.iterdir()}
    # Both say what they were run with, which is the same.
    one, other = (json.loads((f / "config.json").read_text()) for f in (whole / "run", alone))
    assert one | {"out": ""} == other | {"out": ""}


def test_one_process_writes_and_the_other_is_quiet(whole: Path) -> None:
    assert "Saved to" in said(whole, 0)
    assert said(whole, 1) == ""
    told = (whole / "run" / "metrics.jsonl").read_text().splitlines()
    # None twice.
    assert len(told) == len(set(told)) and json.loads(told[-1])["step"] == STEPS[1]
    assert not (whole / "run" / "resume").exists()


@pytest.mark.full
def test_stopped_or_killed_both_end_and_go_on_to_the_same_circuit(
    asked: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    run, first, second, third = (tmp_path / name for name in ("run", "1", "2", "3"))
    processes = both((*asked, "--out", run), first)
    wait_for(lambda: lines(run) > 2 or processes[0].exitcode is not None)
    # The one that does not write.
    os.kill(processes[1].pid, signal.SIGTERM)
    assert statuses(processes, 60) == [143, 143], said(first, 0) + said(first, 1)
    kept = sorted(path.name for path in (run / "resume").iterdir())
    assert f"Stopped; the state of step {int(kept[-1][5:])} is kept" in said(first, 0)
    assert said(first, 0).endswith("--resume")
    assert "the first process says how to go on" in said(first, 1)
    assert "Go on with" not in said(first, 1)
    before = lines(run)
    processes = both((*asked, "--out", run, "--resume"), second)
    wait_for(lambda: lines(run) > before + 2 or processes[0].exitcode is not None)
    assert f"Going on after step {int(kept[-1][5:])}, from" in said(second, 0)
    killed = time.monotonic()
    processes[1].kill()
    processes[0].join(60)
    assert time.monotonic() - killed < 60
    assert processes[0].exitcode == 2, said(second, 0)
    assert "another process of this program is gone" in said(second, 0)
    assert "Traceback" not in said(second, 0)
    assert statuses(both((*asked, "--out", run, "--resume"), third)) == [0, 0], said(third, 0)
    assert "Going on after step" in said(third, 0)
    chex.assert_trees_all_equal(
        mg.load_circuit(run).log_alpha, mg.load_circuit(whole / "run").log_alpha
    )
    assert figures(run) == figures(whole / "run")
    assert (run / "metrics.jsonl").read_text() == (whole / "run" / "metrics.jsonl").read_text()


def test_processes_that_are_told_different_things_are_refused(
    asked: tuple[object, ...], tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "run")
    processes = both((*asked, *out), tmp_path / "1", ("--seed", 0), ("--seed", 1))
    assert statuses(processes, 100) == [2, 2]
    for index in range(2):
        assert "process 1 has another seed: 1, wanted 0" in said(tmp_path / "1", index)
    assert not (tmp_path / "run").exists()
    # In a file of the same name.
    wheres = [tmp_path / "a", tmp_path / "b"]
    rows = Path(str(asked[1])).read_text().splitlines()
    for index, where in enumerate(wheres):
        where.mkdir()
        (where / "mine.jsonl").write_text("\n".join(rows[index:]))
    processes = both(("--data", "mine.jsonl", *asked[2:], *out), tmp_path / "2", wheres=wheres)
    assert statuses(processes, 100) == [2, 2]
    for index in range(2):
        assert "must have the same search, but process 1 has another prompts" in said(
            tmp_path / "2", index
        )
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
