"""A command as one of several processes: what is common to all, and what is said if one is lost.

Each works in a process of its own, because JAX ends a process in the midst of what it does if
another is lost; the one that was started is left to say so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from mgnp_jax.passes.settings import that_count
from mgnp_jax.report.screen import Screen
from mgnp_jax.runs.joining import Joining, join, part
from mgnp_jax.runs.own_process import Died, apart
from mgnp_jax.runs.processes import Processes, joined
from mgnp_jax.runs.stopping import Stopped, listening
from mgnp_jax.types import MgnpError, plain_json

SHARED = ("Gloo", "NCCL", "RCCL", "coordination service", "CoordinationService")
"""What XLA's errors name where devices of several processes work on one thing."""

ENDED_BY_JAX = (-signal.SIGABRT, -signal.SIGSEGV)
"""How processes end that JAX ends because another is lost."""

STOPPING = 60.0
"""Seconds that the first process stays for others to end their step."""

LOST = (
    "another process of this program is gone or cannot be reached (what was printed above, and by "
    "the others, says which and why). What was saved is kept: start all of them again, a run with "
    "--resume"
)


def as_one_of(joining: Joining, main: Callable[[Any, Console], Any], config: Any) -> None:
    """Runs a command as one of several processes.

    Args:
      joining: how they are found.
      main: what each runs, of a module.
      config: of the command; the same for all.

    Raises:
      Stopped: if a signal ended one of them.
      MgnpError: for a mistake, of this process or another, or if one of them is lost.
    """
    with listening() as stop:
        try:
            apart(_work, joining, main, config, stop=stop, on_device=False)
        except Died as died:
            if died.status not in ENDED_BY_JAX:
                raise
            raise MgnpError(LOST) from None


def _work(
    joining: Joining, main: Callable[[Any, Console], Any], config: Any, console: Console
) -> None:
    processes = join(joining)
    if not processes.first:
        console = Screen(quiet=True)
        # Libraries print there, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        processes.check_same("settings", _settings(config))
        main(config, console)
    except KeyboardInterrupt as stopped:
        code = stopped.code if isinstance(stopped, Stopped) else 128 + signal.SIGINT
        _leave({"signal": code - 128}, STOPPING)
        raise
    except MgnpError as error:
        _leave({"error": str(error)})
        raise
    except Exception as error:
        _say_why(processes, error)
        raise
    if joined() is not None:
        part()


def _settings(config: Any) -> dict[str, Any]:
    """What must be the same for all: all but where each has its memory, and when it saves."""
    names = {f.name for f in dataclasses.fields(config)} & {"out", "resume"}
    where = {name: getattr(config, name) for name in sorted(names)}
    return plain_json({**that_count(config), **where})


def _leave(why: dict[str, Any], *seconds: float) -> None:
    if (processes := joined()) is not None:
        processes.leave(why, *seconds)


def _say_why(processes: Processes, error: Exception) -> None:
    """Says what is behind an error of a computation that the processes share.

    Raises:
      MgnpError: if that is what it is.
    """
    if joined() is None or not any(name in str(error) for name in SHARED):
        _leave({"error": f"{type(error).__name__}, see what it printed"})
        return
    # The first may be the one that is gone, and what was said with it.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        processes.check_others()
    _leave({"error": LOST}, 0)
    raise MgnpError(f"{str(error).splitlines()[0][:200]}: {LOST}") from error
