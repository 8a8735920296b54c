"""One leaf of the params out of a checkpoint: only the part that is wanted, a little at a time.

What is read is put at once where it stays, so that nothing is in memory twice: loading takes
little more than the weights themselves.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.models.family import Source
from mgnp_jax.models.files import Stored
from mgnp_jax.models.matching import Tensors
from mgnp_jax.types import MgnpError

CHUNK_BYTES = 16 * 2**20
"""Of a tensor in float32 that are read at a time."""

ROWS = 256
"""Of a chunk that are turned round at a time: the caches hold so many."""

ALIGNED = 64
"""Bytes to a multiple of which arrays must begin for JAX to take them over on CPUs uncopied."""

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Where a leaf of the params is in a checkpoint.

    Attributes:
      tensors: of the checkpoint.
      parts: name of the tensor and where in it the leaf stands, for each layer; one if the leaf
        is of no layer.
      shape: of the leaf.
      stacked: whether its first axis is that of the layers.
      dtype: to be read as.
    """

    tensors: Tensors
    parts: Sequence[tuple[str, Source]]
    shape: tuple[int, ...]
    stacked: bool
    dtype: Any

    def read(self, index: Index) -> np.ndarray:
        """Reads a part of the leaf.

        Args:
          index: which, a slice for each axis, of steps of one.

        Returns:
          The part in Linen's order.

        Raises:
          MgnpError: naming a tensor with values that are not finite in this dtype.
        """
        index = tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, self.shape, strict=True))
        out = _aligned([s.stop - s.start for s in index], self.dtype)
        layers = self.parts[index[0]] if self.stacked else self.parts
        index = index[1:] if self.stacked else index
        work = itertools.chain.from_iterable(
            self._chunks(*part, index, each)
            for part, each in zip(layers, out if self.stacked else [out], strict=True)
        )
        # Copies are made without Python's lock.
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
            for name, good in threads.map(self._copy, work):
                if not good:
                    raise MgnpError(self._why_bad(name))
        return out

    def _chunks(
        self, name: str, source: Source, index: Index, out: np.ndarray
    ) -> Iterator[tuple[str, Source, Index, np.ndarray]]:
        """Cuts the reading of one tensor up along its rows, with the part of `out` each is for."""
        if source.transpose:
            index, out = index[::-1], out.T
        first, *rest = index
        step = max(CHUNK_BYTES // max(4 * math.prod(out.shape[1:]), 1), 1)
        for start in range(0, len(out), step):
            part = out[start : start + step]
            rows = slice(first.start + start, first.start + start + len(part))
            yield name, source, (rows, *rest), part

    def _copy(self, chunk: tuple[str, Source, Index, np.ndarray]) -> tuple[str, bool]:
        """Copies a chunk to where it belongs; says whether all of it are numbers."""
        name, source, (rows, *rest), out = chunk
        tensor = self.tensors[name]
        if source.rows is None:
            block = tensor[(rows, *rest)]
        else:
            chosen = source.rows[rows]
            low, high = int(chosen.min()), int(chosen.max()) + 1
            block = tensor[(slice(low, high), *rest)][chosen - low]
        # As bits, which NumPy copies and compares faster than numbers of two bytes.
        kind = f"u{out.dtype.itemsize}"
        bad = 0
        for start in range(0, len(block), ROWS):
            rows = slice(start, start + ROWS)
            part = _converted(block[rows], out.dtype)
            out[rows].view(kind)[...] = part.view(kind)
            bad += _bad(part)
        return name, not bad

    def _why_bad(self, name: str) -> str:
        whole = _converted(np.asarray(self.tensors[name]), self.dtype)
        return (
            f"tensor {shown(name)} has {_bad(whole):,} of {whole.size:,} values that are NaN or "
            f"infinite in {np.dtype(self.dtype).name}: the checkpoint is damaged, or its training "
            "diverged; use another"
        )


def _converted(block: np.ndarray, dtype: Any) -> np.ndarray:
    # What a dtype cannot hold becomes infinite, which is refused.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(block, dtype)


def _bad(block: np.ndarray) -> int:
    """How many are NaN or infinite: those whose exponent is all ones."""
    kind = f"u{block.dtype.itemsize}"
    ones = np.array(np.inf, block.dtype).view(kind)
    bits = block.view(kind) & ones
    return 0 if not bits.size or bits.max() < ones else int((bits == ones).sum())


def _aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An empty array that JAX need not copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + size].view(dtype).reshape(shape)


def stored_dtype(tensors: Tensors, parts: Sequence[tuple[str, Source]]) -> Any:
    """The dtype that holds tensors as they are in the fewest bytes, of those that passes know.

    Args:
      tensors: of a checkpoint.
      parts: names of some of them, and where in them a leaf stands.

    Returns:
      A format of 16 bits if all are of that, else float32.
    """
    found: set[Any] = set()
    for name, _ in parts:
        tensor = tensors[name]
        found.add(np.dtype(str(tensor.dtype)) if isinstance(tensor, Stored) else tensor.dtype)
    return (
        found.pop() if len(found) == 1 and next(iter(found)).itemsize == 2 else np.dtype("float32")
    )
