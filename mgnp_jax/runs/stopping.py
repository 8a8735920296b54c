"""Ctrl-C and SIGTERM: the first ends a run at the next whole step, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 1.0
"""Seconds in which another SIGTERM is taken for the same one."""


class Stopped(KeyboardInterrupt):
    """A run that a signal ended, which can be gone on with.

    Attributes:
      code: exit status: 128 and the signal's number.
      again: flags that go on with it, beside those that it was begun with; None where another
        process says how.
    """

    def __init__(self, text: str, code: int, again: Sequence[str] | None) -> None:
        """Says what is left of the run.

        Args:
          text: one line.
          code: exit status.
          again: flags that go on with it, beside those that it was begun with; None where another
            process says how.
        """
        super().__init__(text)
        self.code = code
        self.again = None if again is None else tuple(again)


class Stop:
    """What signals have asked for.

    Attributes:
      waits: whether someone looks at `asked` before long; else the first signal raises a
        KeyboardInterrupt wherever the program is.
      asked: the signal that came; None while none has.
      told: what there is to go on from, once somebody knows; part of a sentence.
    """

    def __init__(self) -> None:
        """Nothing asked, nobody looks."""
        self.waits = False
        self.asked: int | None = None
        self.told = ""

    def __call__(self, number: int, frame: object = None) -> None:
        """Takes a signal, as a handler.

        Args:
          number: of the signal.
          frame: not looked at.

        Raises:
          KeyboardInterrupt: if nobody waits for it.
        """
        self.asked = self.asked or number
        if not self.waits:
            raise KeyboardInterrupt

    def look(self) -> int | None:
        """The signal that was asked for; None while none was."""
        return self.asked

    def due(self, done: int, *, more: bool) -> bool:
        """Whether to stop after a step.

        Args:
          done: steps done.
          more: whether another step follows.
        """
        del done, more
        return self.look() is not None


@contextlib.contextmanager
def listening(stop: Stop | None = None) -> Iterator[Stop]:
    """Takes Ctrl-C and SIGTERM, in the main thread; in another nothing is changed.

    Args:
      stop: that takes them; a new one by default.

    Yields:
      What they ask for.
    """
    stop = stop or Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # One that is ignored, as in a shell's background job, stays so.
    heard = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {s: signal.signal(s, stop) for s in heard}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watch.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        watch.join()
        os.close(reading)


def _watch(reading: int) -> None:
    """Sees signals even while the main thread is in a long compilation."""
    first: tuple[int, float] | None = None
    while number := os.read(reading, 1):
        if number[0] not in SIGNALS:
            continue
        now = time.monotonic()
        if first is not None:
            # Who ends a whole job tells its every process, and the parent tells this one once more.
            if first[0] == number[0] == signal.SIGTERM and now - first[1] < ECHO:
                continue
            # The cursor, which a bar may have hidden, and a line below it.
            print("\x1b[?25h\n" * sys.stdout.isatty(), end="", flush=True)
            # Not by sys.stderr, whose locks the main thread may hold.
            with contextlib.suppress(OSError):
                os.write(2, b"Stopped at once; what was saved before is kept\n")
            os._exit(128 + number[0])
        first = number[0], now
        print("Stopping; once more to stop at once", file=sys.stderr, flush=True)


def stopped_run(stop: Stop, folder: Path, again: Sequence[str]) -> Stopped:
    """What to raise where a run was stopped.

    Args:
      stop: what signals have asked for.
      folder: of the run.
      again: flags that go on with it.
    """
    told = stop.told or "nothing had been found yet"
    return Stopped(f"Stopped; {told} ({folder})", 128 + (stop.asked or signal.SIGINT), again)
