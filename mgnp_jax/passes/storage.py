"""Where kept values lie: on the device, in the host's memory, or in a file of their own.

A file is unlinked as soon as it is open, so that it goes with the process, however that ends.
Read through a memory map whose pages are given up at once: they stay in the system's cache while
nobody else wants that memory, and are not this process's.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import shutil
import sys
import tempfile
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.cachedir import cache_root
from mgnp_jax.files import reserve
from mgnp_jax.types import MgnpError

Place = Literal["device", "host", "disk"]

COPY_BYTES = 2**26
"""Bytes that are copied to a file at a time."""

SPARE_DISK = 2**30
"""Bytes of a disk that are left to others."""


class Room(NamedTuple):
    """Bytes that kept values may take in each place.

    Attributes:
      device: of an accelerator's memory; 0 where there is none.
      host: of the machine's.
      disk: of the one that the package's cache folder is on.
    """

    device: int
    host: int
    disk: int

    def place_for(self, need: int) -> Place | None:
        """The fastest place that has room; None if there is none.

        Args:
          need: bytes.
        """
        for place in ("device", "host", "disk"):
            if need <= getattr(self, place):
                return place
        return None

    def without(self, place: Place, taken: int) -> Room:
        """What is left.

        Args:
          place: where something was put.
          taken: bytes.
        """
        return self._replace(**{place: getattr(self, place) - taken})

    @classmethod
    def all_in(cls, place: Place) -> Room:
        """Room without limit in the place that a user insists on.

        Args:
          place: it.
        """
        return cls(0, 0, 0)._replace(**{place: sys.maxsize})

    def part(self, share: float) -> Room:
        """What one of several may take twice, as a new copy is made while the old one stands.

        Args:
          share: in [0, 1], of the whole.
        """
        return Room(*(int(each * share / 2) for each in self))


def gib(count: float) -> str:
    """Bytes as people read them.

    Args:
      count: of bytes.
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"


def free_on_disk() -> int:
    """Bytes that files of kept values may take."""
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        return max(shutil.disk_usage(cache_root()).free - SPARE_DISK, 0)
    except OSError:
        return 0


def empty(shape: tuple[int, ...], dtype: Any, place: Place) -> Any:
    """An array to be filled by `put`.

    Args:
      shape: of it.
      dtype: of it.
      place: JAX's array on the device, NumPy's elsewhere.

    Raises:
      MgnpError: if the file cannot be made.
    """
    if place == "device":
        return jnp.zeros(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if place != "disk" or not size:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=cache_root()) as file:
            # Now, as a full disk met through the map later would end the process.
            reserve(file.fileno(), cache_root(), size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise MgnpError(
            f"no file of {gib(size)} for values of the plain passes can be made in {cache_root()} "
            f"({error.strerror}); name a folder on another disk in MGNP_JAX_CACHE, or allow more "
            "memory (--memory-gib)"
        ) from None


def put(whole: Any, part: Any, start: int, count: int, axis: int) -> Any:
    """Fills a stretch of an array that `empty` made; no second copy of it is made on the way.

    Args:
      whole: [...]; not used again if it is on the device.
      part: [...], longer than the stretch perhaps.
      start: where the stretch begins.
      count: how long it is.
      axis: along which: 0, or 1 after the layers.

    Returns:
      The array, filled there.
    """
    if not isinstance(whole, np.ndarray):
        return _put_on_device(whole, part, start, count, axis)
    before = (slice(None),) * axis
    whole[*before, start : start + count] = part[*before, :count]
    give_up_pages(whole)
    return whole


@functools.partial(jax.jit, static_argnums=4, donate_argnums=0)
def _put_on_device(
    whole: jax.Array, part: jax.Array, start: jax.Array, count: jax.Array, axis: int
) -> jax.Array:
    # Written as one window of one size, as a scatter might copy the whole, and another size would
    # be compiled anew; what only fills the part up leaves what is there.
    size = min(part.shape[axis], whole.shape[axis])
    first = jnp.minimum(start, whole.shape[axis] - size)
    at = first - start + jnp.arange(size)
    new = jnp.take(part, jnp.clip(at, 0, size - 1), axis=axis)
    old = jax.lax.dynamic_slice_in_dim(whole, first, size, axis)
    inside = jnp.expand_dims((at >= 0) & (at < count), [i for i in range(part.ndim) if i != axis])
    return jax.lax.dynamic_update_slice_in_dim(whole, jnp.where(inside, new, old), first, axis)


def lies_in_file(array: Any) -> bool:
    """Whether a kept array takes no memory of the process; one without entries never does.

    Args:
      array: kept.
    """
    return not array.size or getattr(array, "_mmap", None) is not None


def moved_to_file(array: Any, axis: int) -> Any:
    """A kept array, copied to a file part by part if it is not in one.

    Args:
      array: [...].
      axis: along which it is cut.

    Raises:
      MgnpError: if the file cannot be made.
    """
    if lies_in_file(array):
        return array
    file = empty(array.shape, array.dtype, "disk")
    before = (slice(None),) * axis
    length = array.shape[axis]
    count = min(-(-array.nbytes // COPY_BYTES), length)
    for some in np.array_split(np.arange(length), count):
        between = slice(some[0], some[-1] + 1)
        file[*before, between] = np.asarray(array[*before, between])
        give_up_pages(file)
    return file


def give_up_pages(array: Any) -> None:
    """Lets go of what has been read or written of a file; the file keeps it.

    Args:
      array: anything; what lies elsewhere is left alone.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None:
        with contextlib.suppress(AttributeError, ValueError):
            mapped.madvise(mmap.MADV_DONTNEED)


def some(array: Any, which: Any, axis: int) -> Any:
    """Entries of a kept array, copied out of wherever it lies.

    Args:
      array: [...].
      which: [n] int.
      axis: along which: 0, or 1 after the layers.
    """
    if not isinstance(array, np.ndarray):
        return array[(slice(None),) * axis + (which,)]
    if axis == 0 or not lies_in_file(array):
        taken = np.asarray(np.take(array, which, axis=axis))
        give_up_pages(array)
        return taken
    taken = np.empty((len(array), len(which), *array.shape[2:]), array.dtype)
    # Layer by layer: pages that are mapped count as this process's.
    for layer, part in zip(array, taken):
        np.take(layer, which, axis=0, out=part, mode="clip")
        give_up_pages(array)
    return taken


def copied(array: Any, between: slice, axis: int) -> np.ndarray:
    """A stretch of a kept array, copied to host memory from wherever it lies.

    Args:
      array: [...].
      between: from where to where.
      axis: along which: 0, or 1 after the layers.
    """
    if not isinstance(array, np.ndarray):
        return np.asarray(array[(slice(None),) * axis + (between,)])
    return some(array, np.arange(array.shape[axis])[between], axis)
