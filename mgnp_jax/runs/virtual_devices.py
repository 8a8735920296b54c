"""Work in a process of its own that has more devices than the machine: the CPU, several times."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax

from mgnp_jax.types import MgnpError

Result = TypeVar("Result")


def on_virtual_devices(count: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function where JAX sees so many devices, which all are the machine's CPU.

    Args:
      count: of devices.
      work: of a module, so that it can be sent.
      *arguments: sent to it.

    Returns:
      What it returned.

    Raises:
      MgnpError: that it raised, or if the process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=_start, initargs=(count,)
    ) as process:
        try:
            return process.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise MgnpError(
                f"the process that planned for {count} devices ended by itself, mostly because the "
                "machine ran out of memory; end other programs, or plan for fewer"
            ) from None


def _start(count: int) -> None:
    """Makes the devices, before JAX looks for any."""
    # Goes before what the environment says of it.
    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_platforms", "cpu")
