"""One step after another: what every training loop does about memory and being stopped."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mgnp_jax.methods.protocol import OnRecord, Saved, Saves
from mgnp_jax.methods.training.work import Work
from mgnp_jax.passes import memory
from mgnp_jax.types import Record


@dataclasses.dataclass
class At:
    """Where a loop is. Nothing else may hold on to its work, or memory that runs short stays taken.

    Attributes:
      work: what is worked with.
      state: between two steps; `done` counts them.
    """

    work: Work
    state: Any


def run_steps(
    at: At,
    advance: Callable[[Work, Any, OnRecord], tuple[Work, Any]],
    put_aside: Callable[[Work, Any], Saved],
    on_record: OnRecord,
    saves: Saves | None,
) -> None:
    """Advances until all steps are done.

    A step that finds no memory is done again with kept values in files. What it has to say is said
    after it, so that nothing is said twice.

    Args:
      at: where it begins; moved on with every step.
      advance: does a step, and what comes after it.
      put_aside: makes a state of it that can be saved.
      on_record: told what `advance` says.
      saves: where the state is put aside between steps; None for nowhere.
    """
    config = at.work.config
    while at.state.done < config.steps:
        if at.state.done % config.log_every == 0:
            at.work = _looked_after(at.work, on_record)
        said: list[Record] = []
        try:
            at.work, at.state = advance(at.work, at.state, said.append)
        except jax.errors.JaxRuntimeError as error:
            if memory.OUT_OF_MEMORY not in str(error):
                raise
            lean = _leaner(at.work, object, on_record)
            if lean is at.work or lean.no_files:
                raise
            at.work = lean
            continue
        for record in said:
            on_record(record)
        if saves is not None:
            more = at.state.done < config.steps
            state = functools.partial(put_aside, at.work, at.state)
            saves.between_steps(at.state.done, state, more=more)
            # It holds on to the work.
            del state


def ahead(work: Work, done: int, running: Any) -> tuple[Work, Any]:
    """Lays out the next step's batch while a step runs, and waits for that.

    No further ahead: batches are large.

    Args:
      work: what is worked with.
      done: steps, with the one that runs.
      running: what it returned, arrays that are yet to be computed.

    Returns:
      Both, `running` computed.
    """
    work = work.ahead_of(done)
    return work, jax.block_until_ready(running)


def _looked_after(work: Work, on_record: OnRecord) -> Work:
    """The same with what lies in the machine's memory in files, if that runs short."""
    if work.no_files or not memory.is_short():
        return work
    # Where the device is the host, its arrays lie in the same memory.
    kind = object if memory.free_on_device() is None else np.ndarray
    return _leaner(work, kind, on_record)


def _leaner(work: Work, kind: type, on_record: OnRecord) -> Work:
    """The same with values in files, if there are any of a kind outside and files have room."""
    if not work.kept_in(kind):
        return work
    lean = work.in_files()
    if lean.no_files:
        return lean
    told = "Memory runs short: values of the plain passes are kept in files from here on"
    on_record({"passing": True, "text": told})
    return lean
