"""One step after another: what every training loop does about memory and being stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from mgnp_jax.methods.protocol import OnRecord, Saved, Saves
from mgnp_jax.methods.training.work import Work
from mgnp_jax.passes import memory
from mgnp_jax.types import Record

State = TypeVar("State", bound=Any)


def steps(
    work: Work,
    state: State,
    advance: Callable[[Work, State, OnRecord], tuple[Work, State]],
    put_aside: Callable[[Work, State], Saved],
    on_record: OnRecord,
    saves: Saves | None,
) -> Iterator[tuple[Work, State]]:
    """Advances until all steps are done.

    A step that finds no memory is done again with kept values in files. What it has to say is said
    after it, so that nothing is said twice.

    Args:
      work: what is worked with.
      state: between two steps; `done` counts them.
      advance: does a step, and what comes after it.
      put_aside: makes a state of it that can be saved.
      on_record: told what `advance` says.
      saves: where the state is put aside between steps; None for nowhere.

    Yields:
      Both after each step.
    """
    config = work.config
    while state.done < config.steps:
        if state.done % config.log_every == 0:
            work = _looked_after(work, on_record)
        said: list[Record] = []
        try:
            work, state = advance(work, state, said.append)
        except jax.errors.JaxRuntimeError as error:
            if memory.OUT_OF_MEMORY not in str(error):
                raise
            lean = _leaner(work, object, on_record)
            if lean is work or lean.no_files:
                raise
            work = lean
            continue
        for record in said:
            on_record(record)
        yield work, state
        if saves is not None:
            more = state.done < config.steps
            saves.between_steps(state.done, functools.partial(put_aside, work, state), more=more)


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
