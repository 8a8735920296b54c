"""A run that several processes share: what all of them do, and what those do that do not write.

Each has all prompts, runs the shards of its own devices (`passes.sharding`) and comes to the same
circuit. The first has the folder, says what is gone on from, and measures the circuit in the end:
by the same code, on its own devices, as one process would, for which nobody needs the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from mgnp_jax.methods.discover import discover
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.folder import LOCK
from mgnp_jax.runs.joining import part
from mgnp_jax.runs.loading import load
from mgnp_jax.runs.processes import Processes
from mgnp_jax.runs.saving import STATES
from mgnp_jax.runs.shared import FollowedStates, SharedStop, following
from mgnp_jax.runs.stopping import Stop
from mgnp_jax.types import MgnpError, Record

SEEN = 90.0
"""Seconds in which a folder that one machine has made can be seen on another: NFS keeps what it
knows of folders for 30 by default."""


def over_all_devices(config: RunConfig) -> RunConfig:
    """The run with its batches shared by the devices of all processes, unless it says which.

    Args:
      config: of the run.

    Raises:
      MgnpError: if its method shares no batches, or not among so many.
    """
    execution = getattr(config.config, "execution", None)
    if execution is None:
        raise MgnpError(
            f"--method {config.method} has no batches that processes could share: run it without "
            "--distributed. (experiments.paper and experiments.compare share out whole runs)"
        )
    if execution.shard > 1:
        raise MgnpError(
            f"--shard {execution.shard} does not go with --distributed: the first process measures "
            "the circuit by itself, for which it needs all weights. Leave one of the two away, or "
            "share them from Python, where every process calls mg.discover and mg.evaluate"
        )
    check_device()
    if execution.devices > 1:
        return config
    execution = dataclasses.replace(execution, devices=jax.device_count())
    return dataclasses.replace(
        config, config=dataclasses.replace(config.config, execution=execution)
    )


def seen_by_all(
    processes: Processes, folder: Path | None = None, *, done: bool = False
) -> Path | None:
    """Sees to it that all have the folder that the first process holds.

    Args:
      processes: all of them.
      folder: as the first calls it; the others need not know.
      done: as the first knows: there is nothing to do in it.

    Returns:
      The folder; None if there is nothing to do in it.

    Raises:
      MgnpError: in all of them, if one does not see it.
    """
    told = {"folder": str(folder), "done": done, "lock": os.getpid()}
    told = processes.of_first("folder", told)
    seen = processes.of_all("folder seen", processes.first or _appears(told))
    if not all(seen):
        raise MgnpError(
            f"process {seen.index(False)} does not see {told['folder']}, which process 0 works in: "
            "start all of them in the same working folder, or pass an --out on a file system that "
            "all of them share"
        )
    return None if told["done"] else Path(told["folder"])


def _appears(told: Record) -> bool:
    """Whether the lock that the first process holds can be read here, soon."""
    until = time.monotonic() + SEEN
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if (Path(told["folder"]) / LOCK).read_text() == str(told["lock"]):
                return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def parting(stop: Stop) -> Iterator[None]:
    """Lets the processes go when the first has saved all, or all were stopped after the same step.

    Not before: Orbax keeps to JAX's texts as long as there are several processes.

    Args:
      stop: of this process; nothing happens if it is alone.
    """
    try:
        yield
    except KeyboardInterrupt:
        if isinstance(stop, SharedStop) and stop.together:
            _part(stop)
        raise
    if isinstance(stop, SharedStop):
        _part(stop)


def _part(stop: SharedStop) -> None:
    # For as long as it takes: JAX itself waits for some seconds. Who left earlier would end the
    # first amid its measuring, so a signal waits until there is nothing left that it could stop.
    stop.waits = True
    try:
        stop.processes.of_all("done")
        part()
    finally:
        stop.waits = False


def follow(config: RunConfig, processes: Processes) -> None:
    """Does a process's part of a search that the first one writes.

    Args:
      config: of the run.
      processes: all of them.

    Raises:
      Stopped: if a signal ended it.
      MgnpError: as for a run.
    """
    with following(processes) as stop:
        folder = seen_by_all(processes)
        if folder is None:
            return
        model, data, _ = load(config)
        states = FollowedStates(folder / STATES, stop)
        with parting(stop):
            discover(jax.random.key(config.seed), model, data, config.config, saves=states)
