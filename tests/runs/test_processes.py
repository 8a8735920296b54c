"""What processes of one program tell each other and refuse, with threads in their place."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

import mgnp_jax as mg
from mgnp_jax.runs import following, joining, spread
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.folder import held
from mgnp_jax.runs.joining import Joining, join
from mgnp_jax.runs.processes import Gone, Processes
from mgnp_jax.runs.shared import SharedStop
from mgnp_jax.runs.stopping import Stop


class Store:
    """Texts as JAX's client keeps them."""

    def __init__(self) -> None:
        """Nothing said."""
        self.texts: dict[str, str] = {}
        self.lock = threading.Lock()

    def key_value_set(self, key: str, text: str) -> None:
        with self.lock:
            if key in self.texts:
                raise jax.errors.JaxRuntimeError(f"ALREADY_EXISTS: key {key}")
            self.texts[key] = text

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        with self.lock:
            return [(key, text) for key, text in self.texts.items() if key.startswith(folder)]


def both(work: Callable[[Processes], Any]) -> list[Any]:
    """What each of two processes returns or raises."""
    store = Store()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, Processes(index, 2, store)) for index in range(2)]
    return [future.exception() or future.result() for future in futures]


def test_what_one_says_all_hear() -> None:
    assert both(lambda p: p.of_all("index", 10 * p.index)) == [[0, 10], [0, 10]]
    assert both(lambda p: p.of_first("folder", f"from {p.index}")) == ["from 0", "from 0"]


def test_other_settings_are_refused_by_name_in_every_process() -> None:
    told = {"steps": 5, "execution": {"devices": 2}}

    def work(p: Processes, **more: Any) -> None:
        p.check_same("settings", told | {k: v * p.index for k, v in more.items()})

    assert both(work) == [None, None]
    for error in both(lambda p: work(p, steps=6)):
        assert isinstance(error, mg.MgnpError) and not isinstance(error, Gone)
        assert "must have the same settings" in str(error)
        assert "process 1 has another steps: 6, wanted 0 as process 0" in str(error)
    for error in both(lambda p: p.check_same("search", {"prompts": {"sum": p.index}})):
        assert "process 1 has another prompts.sum: 1" in str(error)


def test_nobody_waits_for_one_that_has_ended() -> None:
    def work(p: Processes, why: dict[str, Any]) -> Any:
        if p.index:
            return p.leave(why)
        return p.of_all("never")

    error, _ = both(lambda p: work(p, {"error": "no such model"}))
    assert isinstance(error, Gone) and "process 1 of 2 has ended: no such model" in str(error)
    stopped, _ = both(lambda p: work(p, {"signal": 15}))
    assert isinstance(stopped, KeyboardInterrupt)


def test_a_signal_waits_until_all_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "part", lambda: None)
    asked = threading.Event()

    def work(p: Processes) -> Any:
        stop = SharedStop(p)
        with following.parting(stop):
            if p.first:
                # It measures, when the other is asked to stop and would end it by leaving.
                assert asked.wait(20)
        return stop.asked

    def follower(p: Processes) -> Any:
        stop: Any = SharedStop(p)
        of_all = p.of_all

        def interrupted(topic: str) -> Any:
            stop(signal.SIGTERM)
            asked.set()
            return of_all(topic)

        stop.processes = types.SimpleNamespace(of_all=interrupted)
        with following.parting(stop):
            pass
        return stop.asked

    assert both(lambda p: work(p) if p.first else follower(p)) == [None, signal.SIGTERM]


def test_the_first_stays_until_it_is_heard() -> None:
    heard = threading.Event()

    def work(p: Processes) -> Any:
        if p.first:
            p.leave({"error": "the disk is full"}, seconds=60)
            return heard.is_set()
        try:
            p.of_all("never")
        except Gone as gone:
            heard.set()
            p.leave({"error": "not the first to know"})
            return str(gone)

    assert both(work) == [True, "process 0 of 2 has ended: the disk is full"]


def test_a_folder_that_one_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SEEN", 0.3)

    def work(p: Processes, folder: Path) -> Any:
        if not p.first:
            return following.seen_by_all(p)
        with held(folder):
            return following.seen_by_all(p, folder)

    assert both(lambda p: work(p, tmp_path / "run")) == [tmp_path / "run"] * 2
    monkeypatch.setattr(following, "LOCK", ".other")
    for error in both(lambda p: work(p, tmp_path / "run")):
        assert f"process 1 does not see {tmp_path / 'run'}" in str(error)


@pytest.mark.parametrize("asked", [0, 1])
def test_all_stop_after_the_same_step(asked: int) -> None:
    step = threading.Barrier(2, timeout=60)

    def work(p: Processes) -> tuple[int, int | None]:
        stop = SharedStop(p)
        for done in range(1, 100):
            # As in the sum of the gradients.
            step.wait()
            if p.index == asked and done == 7:
                stop.waits = True
                stop(signal.SIGTERM)
            if stop.due(done, more=True):
                return done, stop.asked
        raise AssertionError("nobody stopped")

    assert both(work) == [(8, signal.SIGTERM)] * 2


def test_a_signal_after_the_last_step_but_one_stops_all_after_the_last() -> None:
    step = threading.Barrier(2, timeout=60)

    def work(p: Processes) -> list[bool]:
        stop = SharedStop(p)
        found = []
        for done in range(1, 4):
            step.wait()
            if p.first and done == 2:
                stop.asked = signal.SIGINT
            found.append(stop.due(done, more=done < 3))
        return found

    assert both(work) == [[False, False, True]] * 2


def test_runs_are_shared_out_by_their_index(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []
    own = threading.local()
    monkeypatch.setattr(spread, "joined", lambda: own.processes)
    monkeypatch.setattr(spread, "part", lambda: None)
    monkeypatch.setattr(
        spread, "apart", lambda work, unit, stop: done.append((unit, own.processes.index))
    )
    made: list[int] = []

    def second() -> list[Any]:
        made.append(len(done))
        return [(print, ("f",))]

    def work(p: Processes) -> bool:
        own.processes = p
        return spread.shared_out([lambda: [(print, (name,)) for name in "abcde"], second], Stop())

    assert both(work) == [True, False]
    assert sorted(done[:5]) == [("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", 0)]
    # What follows is made when all before it is there.
    assert all(before >= 5 for before in made) and done[5:] == [("f", 0)]
    own.processes = None
    assert spread.shared_out([lambda: pytest.fail("alone, nothing is shared")], Stop())


def test_another_processs_mistake_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spread, "apart", stopped)
    store = Store()
    Processes(1, 2, store).leave({"error": "no such task"})
    monkeypatch.setattr(spread, "joined", lambda: Processes(0, 2, store))
    with pytest.raises(Gone, match="process 1 of 2 has ended: no such task"):
        spread.shared_out([lambda: [(print, ())]], Stop())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"processes": 2}, "--processes go with --distributed alone"),
        ({"distributed": True, "coordinator": "here"}, "must be HOST:PORT, got 'here'"),
        ({"distributed": True, "coordinator": "here:99999"}, "must be HOST:PORT"),
        ({"distributed": True, "processes": 0}, "--processes must be at least 1, got 0"),
        ({"distributed": True, "processes": 2, "process": 2}, "below --processes 2, got 2"),
    ],
)
def test_how_processes_are_found_is_checked(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        Joining(**flags)


def test_what_no_launcher_tells_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    asked: dict[str, Any] = {}

    def not_found(*_: Any, **settings: Any) -> None:
        asked.update(settings)
        raise ValueError("nobody told")

    monkeypatch.setattr(joining.jax.distributed, "initialize", not_found)
    with pytest.raises(mg.MgnpError, match=r"--coordinator HOST:PORT .*--processes N"):
        join(Joining(distributed=True))
    # The loss of one is seen within a minute.
    assert asked["heartbeat_timeout_seconds"] <= 30 and asked["initialization_timeout"] >= 60


def test_a_method_without_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(mg.MgnpError, match="--method random has no batches"):
        following.over_all_devices(RunConfig(task="ioi", config=mg.METHODS["random"]()))
    shared = following.over_all_devices(RunConfig(task="ioi"))
    assert shared.config.execution.devices == 4
    asked = RunConfig(task="ioi", config=mg.DiscoverConfig(execution=mg.Execution(devices=2)))
    assert following.over_all_devices(asked) == asked
