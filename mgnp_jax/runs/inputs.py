"""What a run reads that is not in its settings: a file may change under the same name."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from mgnp_jax.methods.discover import circuits_read
from mgnp_jax.models.hub import BUILT_IN

CHECKPOINT = frozenset({".json", ".safetensors", ".txt"})
"""How the names of a checkpoint's files end: config, weights, tokenizer."""


def checksums_of(data: Path | None, model: str, method: Any) -> dict[str, str]:
    """Checksums of the files that decide a run's result; nothing is loaded.

    Args:
      data: file of prompts, if any.
      model: its name; only that of a local directory has files that the user changes.
      method: config of one; it may have folders of other circuits as `like` and `within`.

    Returns:
      Hex digits by the name of the setting; what is not there any more has none.
    """
    found = {}
    if data is not None and data.is_file():
        found["data"] = _of_file(data)
    if model not in BUILT_IN and (folder := Path(model)).is_dir():
        files = sorted(f for f in folder.iterdir() if f.suffix in CHECKPOINT and f.is_file())
        lines = "".join(f"{file.name} {_of_file(file)}\n" for file in files)
        found["model"] = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    return found | circuits_read(method)


def _of_file(file: Path) -> str:
    known = file.stat()
    return _digest(file.resolve(), known.st_size, known.st_mtime_ns)


@functools.cache
def _digest(file: Path, size: int, changed: int) -> str:
    """Of the file as it is now: a comparison asks for each of its runs."""
    del size, changed
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
