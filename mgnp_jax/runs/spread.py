"""Several runs shared out among processes: each does its own, whole, and the first has the rest.

No run depends on how many processes there are: each is one of a single process, in a folder that
all of them see, and one that is done is not done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.following import seen_by_all
from mgnp_jax.runs.joining import part
from mgnp_jax.runs.own_process import apart
from mgnp_jax.runs.processes import Processes, joined
from mgnp_jax.runs.shared import SharedStop, following
from mgnp_jax.runs.stopping import Stop

Unit = tuple[Callable[..., Any], tuple[Any, ...]]
"""Work for `apart`, and what it is given; what it returns is not waited for."""


@contextlib.contextmanager
def at_work_on_all(folder: Path) -> Iterator[Stop]:
    """`at_work` in the first process, or the only one; in others a folder that is seen.

    Args:
      folder: of all the runs.

    Yields:
      What signals ask for, in any of the processes.
    """
    processes = joined()
    if processes is None:
        with at_work(folder) as stop:
            yield stop
        return
    if processes.first:
        with at_work(folder, stop=SharedStop(processes)) as stop:
            seen_by_all(processes, folder)
            yield stop
        return
    with following(processes) as stop:
        seen_by_all(processes)
        yield stop


def shared_out(stages: Sequence[Callable[[], Sequence[Unit]]], stop: Stop) -> bool:
    """Does this process's part of some work, and waits for the others'.

    Every process has to call it with the same. Alone it does nothing: whoever needs the results
    does the work then.

    Args:
      stages: each makes its units when those before it are done everywhere.
      stop: what signals have asked for.

    Returns:
      Whether the process has the rest to do: it is the first, or the only one.

    Raises:
      KeyboardInterrupt: if a signal ended it here or elsewhere.
      MgnpError: for a mistake here or elsewhere.
    """
    processes = joined()
    if processes is None:
        return True
    for number, units in enumerate(stages):
        for work, arguments in units()[processes.index :: processes.count]:
            _done(processes, work, arguments, stop)
        processes.of_all(f"stage {number}")
    part()
    return processes.first


def _done(
    processes: Processes, work: Callable[..., Any], arguments: tuple[Any, ...], stop: Stop
) -> None:
    try:
        apart(work, *arguments, stop=stop)
    except KeyboardInterrupt:
        # Another's mistake stops this one, too, and is what there is to say.
        processes.check_others()
        raise
