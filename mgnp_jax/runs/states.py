"""What a search has on its way, in a folder: its latest states, and the circuit it found."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.protocol import Saved
from mgnp_jax.report.run_folder import flattened, remove_unfinished
from mgnp_jax.runs.folder import held
from mgnp_jax.runs.record_log import RecordLog
from mgnp_jax.runs.state_files import (
    STATE,
    GoneOnFrom,
    read_circuit,
    read_state,
    state_name,
    write_circuit,
    write_state,
)
from mgnp_jax.runs.stopping import Stop
from mgnp_jax.types import MgnpError, Record

SAVE_EVERY = 10.0
"""Seconds between states; putting one aside takes less than a tenth of one, beside the steps."""
KEPT = 2
"""States that are kept: should the newest be damaged, the one before serves."""

_open: dict[Path, States] = {}
"""Those of this process by folder: after an error nobody may have closed them."""


class States(GoneOnFrom):
    """`Saves` in a folder: the latest states, each whole or not at all, and the circuit found.

    Attributes:
      seconds: that were spent up to the state that is gone on from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: float = SAVE_EVERY,
        stop: Stop | None = None,
        log: RecordLog | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
          folder: made when it is needed.
          every: seconds between states.
          stop: what signals have asked for.
          log: that is taken back to where it was.
          say: told in a line what is gone on from.
        """
        self.folder, self.seconds = folder, 0.0
        self._every, self._say, self._stop, self._log = every, say, stop or Stop(), log
        self._search: Record = {}
        self._environment: Record = {}
        self._started = self._last = time.perf_counter()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "states")
        self._pending: concurrent.futures.Future[None] | None = None
        self._holding = contextlib.ExitStack()

    def open(self, search: Record, environment: Record) -> None:
        """Reads the newest state that is whole; see `Saves.open`.

        The folder is this process's alone from then on, until the circuit is found, or `close`.

        Args:
          search: what decides the result.
          environment: on what it is computed.

        Raises:
          MgnpError: if it is another process's, or holds states of another search.
        """
        self._search, self._environment = search, environment
        self._take_folder()
        self._wait()
        self._clear_unfinished()
        self._latest = self._found = None
        facts: Record = {}
        if (found := self._read(self.folder / "circuit", read_circuit)) is not None:
            self._found, facts = found
            self._stop.told = "the circuit that was found is kept and will be measured"
        for path in reversed(self._paths()):
            if self._found is None and self._latest is None:
                if (read := self._read(path, read_state)) is not None:
                    self._latest, facts = read
                    self.seconds = facts["seconds"]
                    self._tell_kept(path)
                    self._say(f"Going on after step {facts['done']}, from {path}")
                    self._say_elsewhere(facts["environment"])
        dropped = 0 if self._log is None else self._log.rewind(facts.get("lines", 0))
        if not facts and (dropped or any(self.folder.glob("damaged-*"))):
            self._say(f"There is nothing to go on from in {self.folder}: it begins again")
        if self._found is not None:
            self._forget_states()
        self._started = self._last = time.perf_counter()

    def between_steps(self, done: int, state: Callable[[], Saved], *, more: bool) -> None:
        """Puts the state aside when it is time, see `Saves.between_steps`.

        Args:
          done: steps done.
          state: makes it.
          more: whether another step follows.
        """
        self._stop.waits = more
        if self._stop.due(done, more=more):
            self.keep(state())
            self._stop.waits = False
            raise KeyboardInterrupt
        if time.perf_counter() - self._last < self._every:
            return
        if self._pending is None or self._pending.done():
            self._begin(state())

    def keep(self, state: Saved) -> str:
        """Puts a state aside and waits for it, see `Saves.keep`.

        Args:
          state: the state.
        """
        self._begin(state)
        self._wait()
        return str(self.folder / state_name(state.done))

    def finish(self, circuit: Circuit) -> None:
        """Puts the circuit aside, see `Saves.finish`.

        Args:
          circuit: that was found.
        """
        self._stop.waits = False
        self._wait()
        write_circuit(self.folder / "circuit", circuit, self._facts())
        self._forget_states()
        self._stop.told = "the circuit that was found is kept and will be measured"

    def close(self) -> None:
        """Waits for what is being written, and gives the folder up."""
        self._thread.shutdown()
        self._holding.close()

    def _take_folder(self) -> None:
        """Takes the folder, from earlier ones of this process once what they write is whole."""
        place = self.folder.resolve()
        if (before := _open.get(place, self)) is not self:
            before.close()
        if place not in _open:
            self._holding.enter_context(held(self.folder))
            self._holding.callback(_open.pop, place)
            _open[place] = self

    def _forget_states(self) -> None:
        """Removes the states of a search whose circuit is found, and gives the folder up."""
        for path in self._paths():
            shutil.rmtree(path, ignore_errors=True)
        self._holding.close()

    def _begin(self, state: Saved) -> None:
        self._wait()
        path = self.folder / state_name(state.done)
        if not path.exists():
            facts = {**self._facts(), "method": state.facts, "done": state.done}
            self._pending = self._thread.submit(write_state, path, state.trees, facts)
        self._last = time.perf_counter()

    def _wait(self) -> None:
        """Until the state that is being written is whole; then older ones may go."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except MgnpError:
            self._clear_unfinished()
            raise
        paths = self._paths()
        self._tell_kept(paths[-1])
        for path in paths[:-KEPT]:
            shutil.rmtree(path)

    def _facts(self) -> Record:
        return {
            "search": self._search,
            "environment": self._environment,
            "lines": 0 if self._log is None else self._log.sync(),
            "seconds": self.seconds + time.perf_counter() - self._started,
        }

    def _say_elsewhere(self, was: Record) -> None:
        """Says what is another device or version than where the state was saved."""
        before, now = flattened(was), flattened(self._environment)
        names = [name for name in before | now if before.get(name) != now.get(name)]
        if names:
            told = (f"{n.replace('.', ' ')} {before.get(n)}, now {now.get(n)}" for n in names)
            self._say(
                f"It was saved elsewhere ({'; '.join(told)}): the circuit may differ from that of "
                "a run that was never interrupted"
            )

    def _tell_kept(self, path: Path) -> None:
        self._stop.told = f"the state of step {int(path.name.rpartition('-')[2])} is kept"

    def _paths(self) -> list[Path]:
        """Whole states, oldest first."""
        return sorted(self.folder.glob(STATE))

    def _clear_unfinished(self) -> None:
        for name in (STATE, "circuit"):
            remove_unfinished(self.folder, name)

    def _read(self, path: Path, read: Callable[[Path], tuple[Any, Record]]) -> Any:
        """What is there, if it is whole and belongs to this search; a damaged one goes aside."""
        if not path.exists():
            return None
        try:
            found, facts = read(path)
        except MgnpError as error:
            aside = path.with_name(f"damaged-{path.name}-{time.time_ns()}")
            path.rename(aside)
            self._say(f"{path} is damaged and not used, it is in {aside.name}: {error}")
            return None
        before, now = flattened(facts["search"]), flattened(self._search)
        # None is a value: a setting that one of them lacks is another, too.
        lacks = object()
        if other := [n for n in before | now if before.get(n, lacks) != now.get(n, lacks)]:
            raise MgnpError(
                f"{path} is of a search with another {', another '.join(other)}; go on with what "
                "it was begun with, or begin anew in another folder"
            )
        return found, facts
