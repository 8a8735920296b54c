"""Work in a process of its own: its result, its mistakes, its memory, and signals."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.runs import own_process
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.own_process import apart
from mgnp_jax.runs.stopping import Stop, Stopped


def _peak(mib: int, console: Console) -> dict[str, Any]:
    np.ones(mib * 2**20, np.uint8).sum()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"process": os.getpid(), "mib": used}


def _wrong(console: Console) -> None:
    raise mg.MgnpError("no such thing; take another")


def _dies(console: Console) -> None:
    os._exit(7)


def _waits(folder: Path, console: Console) -> None:
    with at_work(folder / "run") as stop:
        stop.told = "the state of step 3 is kept"
        (folder / "begun").write_text(str(os.getpid()))
        time.sleep(60)


def test_the_result_comes_back_with_a_peak_of_its_own() -> None:
    ballast = np.ones(900 * 2**20, np.uint8)
    small = apart(_peak, 1, stop=Stop())
    large = apart(_peak, 600, stop=Stop())
    assert os.getpid() not in (small["process"], large["process"])
    # Neither what this process holds nor what the one before has taken.
    assert small["mib"] < 500 < 600 < large["mib"] < 1100
    again = apart(_peak, 1, stop=Stop())
    assert again["mib"] == pytest.approx(small["mib"], rel=0.2)
    del ballast


def test_mistakes_come_back_and_a_death_is_said() -> None:
    with pytest.raises(mg.MgnpError, match="^no such thing; take another$"):
        apart(_wrong, stop=Stop())
    with pytest.raises(mg.MgnpError, match=r"exit status 7.*Call the same command again"):
        apart(_dies, stop=Stop())


def test_a_signal_before_the_process_hears_is_kept_for_it(tmp_path: Path) -> None:
    asked = Stop()
    asked.asked = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        apart(_waits, tmp_path, stop=asked)
    assert not asked.waits


def test_no_process_outlives_one_that_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(*_: Any) -> None:
        raise OSError("broken pipe")

    monkeypatch.setattr(own_process, "_answer", gives_up)
    with pytest.raises(OSError, match="broken pipe"):
        apart(_waits, tmp_path, stop=Stop())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_and_what_is_kept_is_said(tmp_path: Path, number: int) -> None:
    def send() -> None:
        until = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    with pytest.raises(Stopped, match="the state of step 3 is kept") as stopped:
        with at_work(tmp_path / "all") as stop:
            sender.start()
            apart(_waits, tmp_path, stop=stop)
    sender.join()
    assert stopped.value.code == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)
