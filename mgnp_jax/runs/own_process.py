"""Work in a process of its own: its peak memory and time are its own, and it gives all back.

The processes are forks of a small server that has imported everything and computed nothing. One
that is started from a large process in the ordinary way counts that one's memory as its own peak.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import jax
from rich.console import Console

from mgnp_jax.cachedir import keep_compilations
from mgnp_jax.passes.memory import give_back_early, said_if_short
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.report.screen import Screen, flush_quietly, show_what_can_be_shown
from mgnp_jax.runs.stopping import Stop, Stopped
from mgnp_jax.types import MgnpError

IMPORTED = (__name__, "mgnp_jax.runs.run", "transformers")
"""What the server has imported."""

HEARS = ("hears",)
"""What the process sends when signals can be handed on to it."""

LOOK = 0.1
"""Seconds between looks at what signals have asked for."""


class Died(MgnpError):
    """A process that ended without a word.

    Attributes:
      status: as it ended; below 0 by a signal.
    """

    def __init__(self, status: int | None) -> None:
        """Says what that may mean.

        Args:
          status: as it ended; below 0 by a signal.
        """
        super().__init__(
            f"the process that worked on this ended by itself (exit status {status}); what it "
            "printed says why, and -9 is mostly a machine that ran out of memory. Call the same "
            "command again to go on"
        )
        self.status = status


def apart(work: Callable[..., Any], *arguments: Any, stop: Stop, on_device: bool = True) -> Any:
    """Calls a function in a process of its own, to which signals are handed on.

    This process must not have started JAX's device: of an accelerator's memory, two processes
    cannot each have nearly all.

    Args:
      work: (*arguments, console) → a result; of a module, so that it can be sent.
      *arguments: sent to it.
      stop: what signals have asked for here.
      on_device: whether it computes; else JAX is not started before it is asked to be.

    Returns:
      What it returned.

    Raises:
      Stopped: if a signal ended it, as it said.
      KeyboardInterrupt: if a signal ended it, or came when it was done.
      MgnpError: that it raised, or if it died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    receiving, sending = context.Pipe(duplex=False)
    devices = _visible() if on_device else None
    process = context.Process(target=_serve, args=(sending, work, arguments, devices))
    # From here on signals are handed on, so that none ends this process and leaves that one.
    stop.waits = True
    try:
        process.start()
        sending.close()
        answer = _answer(process, receiving, stop)
    finally:
        stop.waits = False
        receiving.close()
        if process.is_alive():
            process.terminate()
            process.join()
    if answer is not None and answer[0] == "failed":
        raise MgnpError(answer[1])
    if answer is not None and answer[0] == "stopped":
        raise Stopped(*answer[1:])
    if stop.asked is not None or (answer is not None and answer[0] == "interrupted"):
        raise KeyboardInterrupt
    if answer is None:
        raise Died(process.exitcode)
    return answer[1]


def _visible() -> dict[str, Any]:
    """JAX's settings of which of the machine's devices are this process's."""
    names = ("jax_cuda_visible_devices", "jax_rocm_visible_devices")
    return {name: jax.config.values[name] for name in names}


def _answer(process: Any, receiving: Any, stop: Stop) -> tuple[Any, ...] | None:
    """What the process sends at its end; None if it dies first."""
    hears, told, answer = False, None, None
    while answer is None:
        ready = connection.wait([receiving, process.sentinel], LOOK)
        if (asked := stop.look()) is not None and told is None and hears:
            told = asked
            # It may be at its end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, told)
        if receiving in ready:
            try:
                answer = receiving.recv()
            except EOFError:
                break
            if answer == HEARS:
                hears, answer = True, None
        elif ready:
            break
    process.join()
    return answer


def _serve(
    sending: Any,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    devices: dict[str, Any] | None,
) -> None:
    """What the process does: the work, under what the commands set up for themselves."""
    # Ctrl-C reaches a terminal's whole group; here the parent alone hands signals on.
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    show_what_can_be_shown()
    keep_compilations()
    give_back_early()
    try:
        # A signal before this might be lost.
        sending.send(HEARS)
        sending.send(_worked(work, arguments, devices, Screen()))
    except BrokenPipeError:
        raise SystemExit(1) from None
    finally:
        flush_quietly()


def _worked(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    devices: dict[str, Any] | None,
    console: Console,
) -> tuple[Any, ...]:
    try:
        if devices is not None:
            for name, value in devices.items():
                jax.config.update(name, value)
            check_device()
        with said_if_short():
            return "done", work(*arguments, console)
    except MgnpError as error:
        return "failed", str(error)
    except Stopped as stopped:
        return "stopped", str(stopped), stopped.code, stopped.again
    except KeyboardInterrupt:
        return ("interrupted",)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
