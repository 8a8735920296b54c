"""What a search has on its way, and when it stops, where several processes share it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.protocol import Saved
from mgnp_jax.runs.processes import Processes, joined
from mgnp_jax.runs.state_files import GoneOnFrom, read_circuit, read_state, state_name
from mgnp_jax.runs.states import States
from mgnp_jax.runs.stopping import Stop, Stopped, listening
from mgnp_jax.types import Record

OFTEN = 1.0
"""Seconds between looks at whether another process was stopped."""


class SharedStop(Stop):
    """What signals have asked any of the processes for.

    Attributes:
      processes: all of them.
      together: whether all have come as far as their steps, so that they stop after the same one.
    """

    def __init__(self, processes: Processes) -> None:
        """Nothing asked.

        Args:
          processes: all of them.
        """
        super().__init__()
        self.processes = processes
        self.together = False
        self._told = False
        self._looked = time.monotonic()

    def look(self) -> int | None:
        """The signal that this process or another was asked for, which all hear of."""
        if joined() is None:
            return self.asked
        if self.asked is not None:
            if not self._told:
                self._told = True
                self.processes.leave({"signal": self.asked}, 0)
        elif time.monotonic() - self._looked > OFTEN:
            self._looked = time.monotonic()
            for why in self.processes.ended().values():
                # Nor is there anything to go on for after another's mistake.
                self.asked = self.asked or why.get("signal", signal.SIGTERM)
        return self.asked

    def due(self, done: int, *, more: bool) -> bool:
        """Whether to stop after a step: the same one in all processes.

        Whoever is asked names the step that follows. None can have done that yet: for the sum of
        the gradients a step waits for all.

        Args:
          done: steps done.
          more: whether another step follows.
        """
        if self.asked is not None and more:
            self.processes.say_once("stop", {"after": done + 1, "signal": self.asked})
        if said := self.processes.said("stop"):
            self.asked = self.asked or said["once"]["signal"]
            return not more or done >= said["once"]["after"]
        return self.asked is not None and not more

    def begun_together(self, *, found: bool) -> None:
        """All have come to their search: a signal waits for its first step, however far that is.

        Args:
          found: whether it is over already.
        """
        self.together, self.waits = True, not found


@contextlib.contextmanager
def following(processes: Processes) -> Iterator[SharedStop]:
    """Takes signals in a process that writes nothing, and leaves it to the first to say what is.

    Args:
      processes: all of them.

    Yields:
      What signals ask for.

    Raises:
      Stopped: if a signal ended this process or another.
    """
    with listening(stop := SharedStop(processes)):
        try:
            yield stop
        except KeyboardInterrupt:
            code = 128 + (stop.asked or signal.SIGINT)
            told = "Stopped; the first process says how to go on"
            raise Stopped(told, code, None) from None


class FirstStates(States):
    """`States` of the first process, which tells the others what is gone on from."""

    def __init__(self, folder: Path, stop: SharedStop, **more: Any) -> None:
        """Nothing is read or written yet.

        Args:
          folder: as for `States`.
          stop: what signals have asked any of them for.
          **more: as for `States`.
        """
        super().__init__(folder, stop=stop, **more)
        self._shared = stop

    def open(self, search: Record, environment: Record) -> None:
        """Reads the newest state that is whole, if all search for the same; see `Saves.open`."""
        processes = self._shared.processes
        _check_same(processes, search, environment)
        super().open(search, environment)
        latest, found = self.latest(), self.found() is not None
        processes.of_first("state", {"done": latest and latest.done, "found": found})
        # Until then nothing of it is removed.
        processes.of_all("state read")
        self._shared.begun_together(found=found)


class FollowedStates(GoneOnFrom):
    """`Saves` of the other processes: they read what the first goes on from, and write nothing."""

    def __init__(self, folder: Path, stop: SharedStop) -> None:
        """Nothing is read yet.

        Args:
          folder: of the first process's states.
          stop: what signals have asked any of them for.
        """
        self.seconds = 0.0
        self._folder, self._stop = folder, stop

    def open(self, search: Record, environment: Record) -> None:
        """Reads what the first process goes on from; see `Saves.open`."""
        processes = self._stop.processes
        _check_same(processes, search, environment)
        told = processes.of_first("state")
        if told["found"]:
            self._found, _ = read_circuit(self._folder / "circuit")
        elif told["done"] is not None:
            self._latest, _ = read_state(self._folder / state_name(told["done"]))
        processes.of_all("state read")
        self._stop.begun_together(found=told["found"])

    def between_steps(self, done: int, state: Callable[[], Saved], *, more: bool) -> None:
        """Stops when all do, see `Saves.between_steps`.

        Args:
          done: steps done.
          state: left to the first process.
          more: whether another step follows.
        """
        del state
        self._stop.waits = more
        if self._stop.due(done, more=more):
            self._stop.waits = False
            raise KeyboardInterrupt

    def keep(self, state: Saved) -> str:
        """Leaves it to the first process, see `Saves.keep`.

        Args:
          state: of all processes.
        """
        return str(self._folder / state_name(state.done))

    def finish(self, circuit: Circuit) -> None:
        """Leaves it to the first process, see `Saves.finish`.

        Args:
          circuit: that all have found.
        """
        del circuit
        self._stop.waits = False


def _check_same(processes: Processes, search: Record, environment: Record) -> None:
    """Refuses processes that would search for other things, or compile other programs."""
    processes.check_same("search", {**search, "environment": environment})
