"""Arrays and files as text that a page carries: bits, sparse numbers, compressed bytes."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def bits(mask: Any) -> str:
    """A binary array, eight entries a byte, the first in the lowest bit, as base64.

    Args:
      mask: [...] bool.
    """
    flat = np.asarray(mask, bool).ravel()
    return _text(np.packbits(flat, bitorder="little").tobytes())


def compressed(content: bytes) -> str:
    """A file, gzipped, as base64; the same each time.

    Args:
      content: what is in it.
    """
    return _text(gzip.compress(content, mtime=0))


def npz(arrays: Mapping[str, Any]) -> str:
    """NumPy's archive of arrays, as base64; the same each time.

    Args:
      arrays: by name.
    """
    stream = io.BytesIO()
    # By hand, since NumPy's own has the time in it.
    with zipfile.ZipFile(stream, "w") as archive:
        for name, leaf in arrays.items():
            member = io.BytesIO()
            np.save(member, np.asarray(leaf))
            info = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED)
    return _text(stream.getvalue())


def sparse(nested: Any) -> dict[str, list[Any]]:
    """Nested lists that are mostly null, as the flat places of the others and what is there.

    Args:
      nested: lists of numbers, truths or None.

    Returns:
      `places` in the flattened array, increasing, and `values`.
    """
    flat = np.asarray(nested, object).ravel()
    places = [i for i, value in enumerate(flat) if value is not None and value is not False]
    return {"places": places, "values": [flat[i] for i in places]}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
