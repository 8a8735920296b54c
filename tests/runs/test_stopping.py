"""The first signal waits for a whole step where somebody looks, the second for nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mgnp_jax.runs.stopping import listening
from tests.experiments.processes import CONTEXT, wait_for


def _never_looks(ready: str, said: str) -> None:
    with open(said, "w") as file, listening() as stop:
        os.dup2(file.fileno(), 2)
        stop.waits = True
        Path(ready).touch()
        time.sleep(300)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = CONTEXT.Process(
        target=_never_looks, args=(str(tmp_path / "ready"), str(tmp_path / "said"))
    )
    process.start()
    assert process.pid is not None
    wait_for((tmp_path / "ready").exists)
    os.kill(process.pid, signal.SIGTERM)
    process.join(0.1)
    # As when a whole job is ended, and the process's parent hands the signal on.
    os.kill(process.pid, signal.SIGTERM)
    process.join(0.5)
    assert process.exitcode is None
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130
    assert (
        (tmp_path / "said").read_text().endswith("Stopped at once; what was saved before is kept\n")
    )


def test_a_signal_waits_only_where_somebody_looks() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        with listening() as stop:
            stop.waits = True
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked == signal.SIGTERM
            stop.waits = False
            stop(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_handler_is_installed_outside_the_main_thread() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def elsewhere() -> None:
        with listening() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.asked))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before, None)]
