"""Processes on one or more machines that are one program: how they join, tell and leave.

JAX joins them (`jax.distributed`): it knows the launchers that set numbers and addresses, ends all
if one does not show signs of life, and keeps a few texts that every process can read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax

# Its texts are for all users of JAX, but it has no public name for them.
from jax._src import distributed

from mgnp_jax.report.run_folder import flattened
from mgnp_jax.types import MgnpError, Record

LOOK = 0.1
"""Seconds between looks at what others have said."""

HEARING = 3.0
"""Seconds that the first process, which keeps the texts, stays for others to hear why it ends."""

ENDED = "ended"
"""Where a process says why it ends before the others."""


class Gone(MgnpError):
    """Another process has ended, which has said why: that is where to look."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """All processes, as one of them sees them.

    Attributes:
      index: of this one, from 0.
      count: of all.
      store: JAX's client, which keeps the texts.
    """

    index: int
    count: int
    store: Any

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def say(self, topic: str, value: Any) -> None:
        """Tells all others.

        Args:
          topic: said once by each.
          value: JSON.
        """
        self.store.key_value_set(f"mgnp_jax/{topic}/{self.index}", json.dumps(value))

    def say_once(self, topic: str, value: Any) -> None:
        """Tells all others, unless one has told first: what counts is then theirs.

        Args:
          topic: to be read by `said`.
          value: JSON.
        """
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self.store.key_value_set(f"mgnp_jax/{topic}/once", json.dumps(value))

    def said(self, topic: str) -> dict[str, Any]:
        """What has been said so far, without waiting.

        Args:
          topic: as in `say`.

        Returns:
          JSON by the index of the process, or "once".
        """
        found = self.store.key_value_dir_get(f"mgnp_jax/{topic}/")
        return {name.rpartition("/")[2]: json.loads(text) for name, text in found}

    def of_all(self, topic: str, value: Any = None) -> list[Any]:
        """Tells all others and waits until each has told.

        Args:
          topic: used once.
          value: JSON.

        Returns:
          What each process said, by its index.

        Raises:
          Gone: if one ends first.
          KeyboardInterrupt: if one is stopped first.
        """
        self.say(topic, value)
        found = self.wait(lambda: len(said := self.said(topic)) == self.count and said)
        return [found[str(index)] for index in range(self.count)]

    def of_first(self, topic: str, value: Any = None) -> Any:
        """What the first process says.

        Args:
          topic: used once.
          value: JSON; that of the first process counts.

        Raises:
          Gone: if one ends first.
          KeyboardInterrupt: if one is stopped first.
        """
        if self.first:
            self.say(topic, value)
            return value
        return self.wait(lambda: self.said(topic))["0"]

    def wait(self, found: Callable[[], Any]) -> Any:
        """Waits for something, as long as no process ends.

        Args:
          found: what is waited for, once it is there; else something that is false.

        Raises:
          Gone: if a process ends first.
          KeyboardInterrupt: if a process is stopped first.
        """
        while not (what := found()):
            self.check_others()
            time.sleep(LOOK)
        return what

    def ended(self) -> dict[str, Any]:
        """Why other processes end, by their index: `error`, a text, or `signal`, a number."""
        return {who: why for who, why in self.said(ENDED).items() if int(who) != self.index}

    def check_others(self) -> None:
        """Looks whether another process has said that it ends.

        Raises:
          Gone: if it does, because of a mistake.
          KeyboardInterrupt: if it was stopped.
        """
        for who, why in self.ended().items():
            if "signal" in why:
                raise KeyboardInterrupt
            raise Gone(f"process {who} of {self.count} has ended: {why['error']}")

    def check_same(self, topic: str, settings: Record) -> None:
        """Refuses what is not the same everywhere.

        Args:
          topic: what it is, as a reader calls it; used once.
          settings: JSON dict, which may be nested.

        Raises:
          MgnpError: in every process, naming what differs.
        """
        said = self.of_all(topic, flattened(settings))
        for other, theirs in enumerate(said):
            names = [n for n in said[0] | theirs if said[0].get(n) != theirs.get(n)]
            if names:
                name = names[0]
                more = f" (and {', '.join(names[1:])})" if names[1:] else ""
                raise MgnpError(
                    f"the processes of one program must have the same {topic}, but process {other} "
                    f"has another {name}{more}: {theirs.get(name)}, wanted {said[0].get(name)} as "
                    "process 0; start all of them alike, with the same files"
                )

    def leave(self, why: Record, seconds: float = HEARING) -> None:
        """Says that this process ends before the others, and stays for a moment to be heard.

        Args:
          why: `error`, a text, or `signal`, a number.
          seconds: that the first stays at most, as its texts go with it.
        """
        # Whoever is not heard is missed after a while.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if str(self.index) not in self.said(ENDED):
                self.say(ENDED, why)
            until = time.monotonic() + seconds
            while self.first and time.monotonic() < until:
                if len(self.said(ENDED)) == self.count:
                    return
                time.sleep(LOOK)


def joined() -> Processes | None:
    """The processes of this program; None if it is the only one, or they have parted."""
    state = distributed.global_state
    if state.client is None:
        return None
    return Processes(state.process_id, state.num_processes, state.client)
