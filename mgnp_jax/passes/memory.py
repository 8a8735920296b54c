"""How much memory there is, how much is taken, and giving back what an allocator only holds."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import psutil

from mgnp_jax.types import MgnpError

SPARE_MEMORY = 0.05
"""Share of the machine's memory below which what can lie in files is put there, at most a GiB."""

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What XLA's errors say when there is not enough."""

CGROUP = Path("/sys/fs/cgroup")
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, use, and what of the use the kernel gives up first, of a container; by version."""


def resident() -> int:
    """Bytes that this process holds of the machine's memory."""
    return psutil.Process().memory_info().rss


def peak_mb(devices: Sequence[Any] | None = None) -> float:
    """Most memory that was taken at a time so far, MiB.

    Args:
      devices: accelerators or CPUs of this process; all by default.

    Returns:
      What arrays and programs took on the accelerator that took most, whatever was reserved; where
      none says that, what the process held of the machine's memory. All that it did counts.
    """
    all_of_them = jax.local_devices() if devices is None else devices
    stats = [d.memory_stats() or {} for d in all_of_them if d.platform != "cpu"]
    if known := [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]:
        return max(known) / 2**20
    # Kibibytes, as Linux counts.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def free_on_host(cgroup: Path = CGROUP) -> int:
    """Bytes that may still be taken on this machine, or in this container if that has less.

    Args:
      cgroup: where the kernel says what a container may take.
    """
    return _host(cgroup)[0]


def _host(cgroup: Path) -> tuple[int, int]:
    """Bytes that may still be taken, and bytes in all."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for names in _CGROUPS:
        # No such files, or "max": there is no limit.
        with contextlib.suppress(OSError, ValueError, IndexError):
            limit, used = (int((cgroup / name).read_text()) for name in names[:2])
            lines = (cgroup / names[2]).read_text().splitlines()
            given_up = [int(line.split()[1]) for line in lines if line.split()[0] == names[3]]
            free = min(free, max(limit - used + sum(given_up), 0))
            total = min(total, limit)
    return free, total


def is_short(cgroup: Path = CGROUP) -> bool:
    """Whether the machine has so little memory left that it may end a process.

    Args:
      cgroup: where the kernel says what a container may take.
    """
    free, total = _host(cgroup)
    return free < min(SPARE_MEMORY * total, 2**30)


@contextlib.contextmanager
def said_if_short() -> Iterator[None]:
    """For programs: what ends because memory has run out says so, and what takes less.

    Raises:
      MgnpError: instead of XLA's error and of Python's own.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and OUT_OF_MEMORY not in str(error):
            raise
        told = (str(error).splitlines() or ["MemoryError"])[0][:300]
        raise MgnpError(
            f"memory has run out ({told}). End other programs, or use shorter prompts or a smaller "
            "model; a search takes less with --cache-on disk or a smaller --memory-gib, which "
            "change nothing that is found, and with a larger --accumulate or --remat"
        ) from error


def free_on_device() -> int | None:
    """Bytes that may still be taken on the first device; None where that is the host."""
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def give_back() -> None:
    """Gives freed memory back to the machine, which glibc otherwise keeps for later.

    Compiling a step frees some 300 MB that nothing asks for again. Does nothing elsewhere.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def give_back_early() -> None:
    """Makes glibc give large arrays back as soon as they are freed, not when their heap ends.

    For programs, as it is a setting of the whole process. Does nothing elsewhere.
    """
    m_mmap_threshold = -3
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(m_mmap_threshold, 2**20)
