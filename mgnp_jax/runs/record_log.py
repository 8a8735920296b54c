"""metrics.jsonl: what a method says, to be gone on with where a state was put aside."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mgnp_jax.types import MgnpError, Record, plain_json


class RecordLog:
    """metrics.jsonl: what a method says, a JSON dict a line.

    Attributes:
      lines: how many there are.
    """

    def __init__(self, file: Path) -> None:
        """Opens the file; it is empty until `rewind`.

        Args:
          file: may exist.
        """
        self._file = file.open("a+b")
        self.lines = 0

    def __call__(self, record: Record) -> None:
        """Writes a line.

        Args:
          record: JSON dict.
        """
        text = json.dumps(plain_json(record), allow_nan=False)
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        self.lines += 1

    def rewind(self, lines: int) -> int:
        """Drops what comes after the first lines.

        Args:
          lines: how many stay.

        Returns:
          How many do not.

        Raises:
          MgnpError: if there are fewer.
        """
        self._file.seek(0)
        there = self._file.readlines()
        kept = there[:lines]
        if len(kept) < lines:
            raise MgnpError(
                f"{self._file.name} has {len(kept)} lines, and {lines} when the state that is gone "
                "on from was put aside; restore it, or begin anew in another folder"
            )
        self._file.truncate(sum(map(len, kept)))
        self._file.seek(0, os.SEEK_END)
        self.lines = lines
        return len(there) - lines

    def sync(self) -> int:
        """Sees to it that all lines are on disk, and counts them."""
        os.fsync(self._file.fileno())
        return self.lines

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
