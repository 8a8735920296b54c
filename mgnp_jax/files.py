"""Files: JSON of strangers read safely, our own written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import reprlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.types import MgnpError

LARGEST_FILE = 10_000_000
"""Bytes of JSON beside a checkpoint; the indices of the largest models have a tenth of it."""

# Whatever a file holds, a message stays readable.
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 160
_short.maxlist = _short.maxtuple = 6
_short.maxdict = 12
_short.maxlevel = 3


def shown(value: Any) -> str:
    """A value from a file as it can stand in a message: one short line, whatever it is.

    Args:
      value: anything that JSON can hold.
    """
    return _short.repr(value)


def read_object(
    file: Path,
    mend: str = "fetch it again",
    *,
    most: int = LARGEST_FILE,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
      file: to be read.
      mend: what to do if it cannot be, as the end of a sentence.
      most: bytes that it may have.
      pairs: makes an object of its names and values; by default the last of equal names counts.

    Returns:
      The object.

    Raises:
      MgnpError: if it cannot be read, is no plain file, too large for what it should be, not
        JSON, or holds something else.
    """
    try:
        size = file.stat().st_size
        # Opening a pipe may wait for good, and a device may have no end.
        if not file.is_file():
            raise MgnpError(f"{file} is no plain file, wanted one with a JSON object; {mend}")
        with file.open("rb") as stream:
            raw = stream.read(most + 1)
        if len(raw) > most:
            size = max(size, len(raw))
            raise MgnpError(f"{file} has {size:,} bytes, wanted at most {most:,}; {mend}")
        # A byte-order mark, as editors on Windows write it, is let pass.
        parsed = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=pairs)
    except OSError as error:
        raise MgnpError(f"{file} cannot be read: {shown(str(error))}; {mend}") from None
    except RecursionError:
        raise MgnpError(f"{file} is nested too deeply to be read; {mend}") from None
    except MgnpError:
        raise
    except ValueError as error:
        raise MgnpError(f"{file} is not JSON: {shown(str(error))}; {mend}") from None
    if not isinstance(parsed, dict):
        raise MgnpError(f"{file} holds {type(parsed).__name__}, wanted an object; {mend}")
    return parsed


@contextlib.contextmanager
def replacing(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Replaces a file whole, or leaves what was there.

    Args:
      file: where.
      shared: whether other processes may write it at the same time, as in the cache.

    Yields:
      A file beside it to write to. Its name is the same each time unless `shared`, so that one
      that a killed process left is written over.
    """
    own = f".{os.getpid()}" if shared else ""
    part = file.with_name(f"{file.name}{own}.part")
    try:
        yield part
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(file: Path, text: str, *, shared: bool = False) -> None:
    """Writes a text file whole or not at all, whatever was there before.

    Args:
      file: where.
      text: in it, its line ends as they are; halves of characters as escapes.
      shared: whether other processes may write it at the same time.
    """
    with replacing(file, shared=shared) as part:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_csv(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table whole or not at all.

    Args:
      file: where.
      columns: their names.
      rows: a value for each column; None is left empty.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    write_whole(file, text.getvalue())


def reserve(file: int, folder: Path, size: int) -> None:
    """Takes the room of a file on its disk before anything is written to it.

    Args:
      file: descriptor of it, open for writing.
      folder: that it is in.
      size: bytes.

    Raises:
      OSError: if there is no room.
    """
    # It knows quotas, too, but macOS lacks it.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    elif shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
