"""Runs in processes of their own that have imported everything already, to be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# What a run imports on its way.
import transformers  # noqa: F401
from orbax.checkpoint import v1  # noqa: F401

from experiments.command import command
from experiments.run import main
from mgnp_jax.runs.config import RunConfig

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
NAMES = ("Mary", "John", "Emma", "Paul", "Lisa", "Mark", "Anna", "Adam")
PRUNING = (
    *("--steps", 12, "--batch-size", 4, "--validate-every", 4, "--log-every", 2),
    # Closes nodes for good on the way.
    *("--learning-rate", 2.0, "--keep", 0.3, "--warmup", 0, "--nesting.least", 4),
    *("--compile-cost", 1e6, "--save-every", 0),
)

HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, str(os.getpid()).encode())
print("held", flush=True)
sys.stdin.read()
"""
"""A program that holds the lock it is given, until it is killed."""


def begin(
    arguments: tuple[object, ...],
    printed: Path,
    most: int | None = None,
    *,
    devices: int = 1,
    where: Path | None = None,
) -> Any:
    """Starts `experiments.run ARGUMENTS`.

    Args:
      arguments: of the command line.
      printed: file for what it prints.
      most: bytes a file may have, as on a disk that is nearly full; None for any.
      devices: of the process.
      where: its working folder; this one's by default.
    """
    told = [*map(str, arguments)]
    process = CONTEXT.Process(target=_run, args=(told, str(printed), most, devices, where))
    process.start()
    return process


def ended(arguments: tuple[object, ...], printed: Path, most: int | None = None) -> int:
    """The same, until it has ended.

    Args:
      arguments: of the command line.
      printed: file for what it prints.
      most: bytes a file may have; None for any.

    Returns:
      The exit status; below 0 if it was killed.
    """
    process = begin(arguments, printed, most)
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def wait_for(what: Callable[[], bool], seconds: float = 240) -> None:
    """Waits until something is so.

    Args:
      what: whether it is.
      seconds: at most.
    """
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def _run(
    arguments: list[str], printed: str, most: int | None, devices: int, where: Path | None
) -> None:
    sys.argv = ["experiments/run.py", *arguments]
    sys.stdout = sys.stderr = file = open(printed, "w", buffering=1)
    if "--distributed" in arguments:
        # It works in a process that it starts.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if where is not None:
        os.chdir(where)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    jax.config.update("jax_num_cpu_devices", devices)
    command(RunConfig, main, distributed=True)


def few_pairs(folder: Path) -> Path:
    """A file of so few pairs that hardly anything but compiling takes time."""
    rows = [
        {
            "clean": f"Then {a} and {b} spent the day at the park, and {b} gave a book to",
            "corrupted": f"Then {c} and {b} spent the day at the park, and {a} gave a book to",
            "answers": [f" {a}"],
            "wrong_answers": [f" {b}"],
        }
        for i, a in enumerate(NAMES)
        for b, c in ((NAMES[i - 1], NAMES[i - 2]), (NAMES[i - 3], NAMES[i - 5]))
    ]
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file
