"""States in a folder: the latest two, whole or not at all, and those of this search alone."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.protocol import Saved
from mgnp_jax.runs import state_files
from mgnp_jax.runs import states as module
from mgnp_jax.runs.record_log import RecordLog
from mgnp_jax.runs.states import States
from tests import tiny
from tests.experiments.processes import HOLD

ENVIRONMENT = {"versions": {"jax": "1.0"}, "device": {"kind": "cpu"}}
SEARCH = {"method": "mine", "weights": "abc", "settings": {"steps": 3}}


def state(done: int) -> Saved:
    trees = {"a": {"x['y']": np.arange(3, dtype=np.float32) + done}, "b": {"m": np.ones(2, bool)}}
    return Saved(done=done, trees=trees, facts={"loss": 0.1 + done})


@contextlib.contextmanager
def opened(
    folder: Path, search: Any = SEARCH, environment: Any = ENVIRONMENT, **more: Any
) -> Iterator[States]:
    with contextlib.closing(States(folder, every=0, **more)) as states:
        states.open(search, environment)
        yield states


def save(folder: Path, *steps: int) -> None:
    with opened(folder) as states:
        for step in steps:
            states.keep(state(step))


def latest(folder: Path, **more: Any) -> Saved:
    with opened(folder, **more) as states:
        assert (found := states.latest()) is not None
        return found


def test_the_latest_two_are_kept_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]
    found = latest(tmp_path)
    chex.assert_trees_all_equal(found.trees, state(3).trees)
    assert found.done == 3 and found.facts == state(3).facts


def test_states_are_saved_when_it_is_time(tmp_path: Path) -> None:
    with contextlib.closing(States(tmp_path, every=1000)) as states:
        states.open(SEARCH, ENVIRONMENT)
        states.between_steps(1, lambda: pytest.fail("not yet"), more=True)
    with opened(tmp_path) as states:
        states.between_steps(1, lambda: state(1), more=True)
    assert latest(tmp_path).done == 1


def damages(folder: Path) -> Iterator[str]:
    """Damages the newest state in every way there is, one after another."""
    for file in sorted(p for p in (folder / "step-00000002").rglob("*") if p.is_file()):
        yield str(file.relative_to(folder))


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_state_is_said_and_the_one_before_serves(tmp_path: Path, how: str) -> None:
    save(tmp_path / "good", 1, 2)
    files = list(damages(tmp_path / "good"))
    assert len(files) > 5
    noticed = 0
    for i, name in enumerate(files[:: 1 + len(files) // 6]):
        folder = tmp_path / f"{i}"
        save(folder, 1, 2)
        # Its files have random names.
        file = [folder / name for name in damages(folder)][i * (1 + len(files) // 6)]
        data = bytearray(file.read_bytes())
        if how == "gone":
            file.unlink()
        elif how == "cut":
            file.write_bytes(data[: len(data) // 2])
        else:
            for j in range(0, len(data), 7):
                data[j] ^= 0x55
            file.write_bytes(data)
        said: list[str] = []
        found = latest(folder, say=said.append)
        # What is not read matters not; nothing that is wrong is ever taken.
        chex.assert_trees_all_equal(found.trees, state(found.done).trees)
        assert found.facts == state(found.done).facts
        if found.done == 1:
            noticed += 1
            assert "step-00000002 is damaged and not used" in said[0]
            assert "Going on after step 1" in said[1]
            assert (folder / said[0].split(" it is in ")[1].split(":")[0]).is_dir()
    assert noticed


def test_a_state_of_another_search_is_refused_by_what_is_other(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(
        mg.MgnpError, match="with another weights, another settings.steps; go on with"
    ):
        with opened(tmp_path, SEARCH | {"weights": "x", "settings": {"steps": 4}}):
            pass
    assert latest(tmp_path).done == 1


def test_another_device_or_version_is_said(tmp_path: Path) -> None:
    save(tmp_path, 1)
    said: list[str] = []
    latest(tmp_path, say=said.append)
    assert len(said) == 1
    other = {"versions": {"jax": "1.0", "flax": "2"}, "device": {"kind": "gpu"}}
    latest(tmp_path, environment=other, say=said.append)
    assert said[2].startswith("It was saved elsewhere (")
    assert "device kind cpu, now gpu" in said[2] and "versions flax None, now 2" in said[2]
    assert "jax" not in said[2]


def test_without_posix_fallocate_a_full_disk_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    save(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10_000))
    with pytest.raises(mg.MgnpError, match="step-00000002 cannot be written .*No space left"):
        save(tmp_path, 2)
    assert latest(tmp_path).done == 1


def test_what_was_half_written_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000002.orbax-checkpoint-tmp-1").mkdir()
    assert latest(tmp_path).done == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_what_is_not_a_states_own_stays(tmp_path: Path) -> None:
    names = {"my-tmp-results", ".tmp", "step-1", "step-3-tmp", "circuit-tmp", "mine.tmp"}
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").touch()
    save(tmp_path, 1, 2, 3)
    assert latest(tmp_path).done == 3
    assert {p.name for p in tmp_path.iterdir()} == names | {"step-00000002", "step-00000003"}
    assert all((tmp_path / name / "mine.txt").exists() for name in names)


def test_a_folder_is_one_process_s_and_that_of_its_latest_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(States(tmp_path, every=0)) as first:
        first.open(SEARCH, ENVIRONMENT)
        write = module.write_state

        def slow(*others: Any) -> None:
            time.sleep(0.2)
            write(*others)

        monkeypatch.setattr(module, "write_state", slow)
        first.between_steps(1, lambda: state(1), more=True)
        # Nobody has closed it, as after an error in a notebook.
        assert latest(tmp_path).done == 1
    # And the same one may be opened again.
    with opened(tmp_path) as states:
        states.between_steps(2, lambda: state(2), more=True)
        states.open(SEARCH, ENVIRONMENT)
        assert (found := states.latest()) is not None and found.done == 2
    asked = (sys.executable, "-c", HOLD, str(tmp_path / ".lock"))
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(mg.MgnpError, match=rf"in use by .*\(process {process.pid}\)"):
            latest(tmp_path)
        process.kill()
    assert latest(tmp_path).done == 2


def test_what_is_found_leaves_no_states_and_gives_the_folder_up(tmp_path: Path) -> None:
    circuit = mg.Circuit(masks=mg.full_masks(tiny.GPT2), metadata={})
    with opened(tmp_path) as states:
        states.keep(state(1))
        states.finish(circuit)
        assert [p.name for p in tmp_path.iterdir()] == ["circuit"]
    # Killed before they were removed.
    (tmp_path / "step-00000001").mkdir()
    with opened(tmp_path) as states:
        assert states.found() is not None
        assert [p.name for p in tmp_path.iterdir()] == ["circuit"]


def test_a_full_disk_is_said_and_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *others: Any) -> None:
        (path.parent / f"{path.name}.orbax-checkpoint-tmp-1").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as states:
        states.keep(state(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", lambda *_: full(tmp_path / "step-00000009"))
            with pytest.raises(mg.MgnpError, match="step-00000002 cannot be written .*No space"):
                states.keep(state(2))
        monkeypatch.setattr(state_files, "save_trees", full)
        states.between_steps(2, lambda: state(2), more=True)
        with pytest.raises(mg.MgnpError, match="step-00000002 cannot be written .*No space left"):
            states.keep(state(3))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert latest(tmp_path).done == 1


def test_the_log_goes_back_to_where_the_state_was(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with contextlib.closing(RecordLog(file)) as log:
        with opened(tmp_path / "states", log=log) as states:
            log({"step": 1})
            states.keep(state(1))
            log({"step": 2})
    with file.open("a") as torn:
        torn.write('{"step": 3, "lo')
    with contextlib.closing(RecordLog(file)) as log:
        with opened(tmp_path / "states", log=log):
            log({"step": 2})
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    file.write_text("")
    with contextlib.closing(RecordLog(file)) as log:
        with pytest.raises(mg.MgnpError, match="has 0 lines, and 1 when the state"):
            with opened(tmp_path / "states", log=log):
                pass


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_search_that_begins_again_says_so(tmp_path: Path, how: str) -> None:
    folder, file = tmp_path / "states", tmp_path / "metrics.jsonl"
    said: list[str] = []
    with contextlib.closing(RecordLog(file)) as log:
        with opened(folder, log=log, say=said.append) as states:
            log({"step": 1})
            states.keep(state(1))
    assert not said
    if how == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "step-00000001" / "_CHECKPOINT_METADATA").unlink()
    with contextlib.closing(RecordLog(file)) as log:
        with opened(folder, log=log, say=said.append) as states:
            assert states.latest() is None
    assert said[-1] == f"There is nothing to go on from in {folder}: it begins again"
    assert file.read_text() == ""
