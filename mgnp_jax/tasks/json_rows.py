"""A file → its rows, each with where it stands; or one sentence that says what the file is."""

from __future__ import annotations

import codecs
import collections
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.tasks.csv_rows import table_rows
from mgnp_jax.tasks.layouts import FIELDS, Layout, Unusable, layout_of
from mgnp_jax.types import MgnpError

LARGEST = 2**28
"""Bytes of a file; prompts by which a circuit can be found are never so many."""

NOT_JSON = "not JSON"
"""Cause of a row's being unusable."""

NAMED = 8
"""So many fields or columns are named."""

BINARY = {
    b"\x1f\x8b": "compressed by gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PAR1": "a Parquet table",
    b"ARROW1": "an Arrow table",
}

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_rows(path: Path) -> tuple[list[tuple[str, Any]], Layout]:
    """Reads JSON Lines, a JSON array, one JSON object with a list of `prompts`, or a table.

    Args:
      path: of the file.

    Returns:
      Where each row stands and its value, an exception for what is no row; and their layout, of
      which at least one row has all fields.

    Raises:
      MgnpError: for a file that holds no such row, saying what it is.
    """
    form = f"JSON Lines, one object a line with the fields {', '.join(FIELDS)}"
    text = _text(path, form)
    try:
        whole = _parsed(text)
    except (ValueError, RecursionError):
        whole = None
    prompts = whole.get("prompts") if isinstance(whole, Mapping) else None
    if isinstance(prompts, list):
        rows = [(f"{path.name}: prompts[{i}]", row) for i, row in enumerate(prompts)]
    elif isinstance(whole, list):
        rows = [(f"{path.name}: [{i}]", row) for i, row in enumerate(whole)]
    elif isinstance(whole, Mapping):
        rows = [(f"{path.name}:1", whole)]
    else:
        rows = _lines(text, path.name)
    layout = layout_of([row for _, row in rows])
    if layout is None and not any(isinstance(row, Mapping) for _, row in rows):
        table = table_rows(text, path.name) or []
        layout = layout_of([row for _, row in table])
        rows = table if layout else rows
    if layout is None:
        raise MgnpError(f"{path} {_told(rows, text)}; wanted {form}")
    return rows, layout


def _text(path: Path, form: str) -> str:
    if not path.is_file():
        raise MgnpError(f"data file {path} does not exist or is no file; wanted {form}")
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise MgnpError(
                f"{path} has {size:,} bytes, and at most {LARGEST:,} are read; wanted {form}: keep "
                "the prompts that are needed"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise MgnpError(f"{path} cannot be read ({error.strerror}); wanted {form}") from None
    for start, kind in BINARY.items():
        if raw.startswith(start):
            raise MgnpError(f"{path} is {kind}; unpack it: wanted {form}")
    encoding = next((name for start, name in ENCODINGS.items() if raw.startswith(start)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise MgnpError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start:,}); save it as UTF-8: "
            f"wanted {form}"
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> Any:
    """An object, unless it says something twice."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counts = collections.Counter(name for name, _ in pairs)
    twice = next(name for name, count in counts.items() if count > 1)
    return Unusable(f"the field {shown(twice)} is there twice", NOT_JSON)


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _lines(text: str, name: str) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    # Not splitlines: text inside a JSON string may hold its other separators.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        # Malformed text, numbers too long to read, and nesting too deep.
        except (ValueError, RecursionError) as error:
            # Its own words count lines from this one.
            at = isinstance(error, json.JSONDecodeError)
            told = f"{error.msg} at column {error.colno}" if at else error
            row = Unusable(f"not JSON ({told})", NOT_JSON)
        rows.append((f"{name}:{number}", row))
    return rows


def _told(rows: Sequence[tuple[str, Any]], text: str) -> str:
    """What a file without a single row of ours is."""
    if not rows:
        return "is empty"
    origin, row = rows[0]
    objects = [row for _, row in rows if isinstance(row, Mapping)]
    if objects:
        fields = list(dict.fromkeys(name for each in objects for name in each))
        what = "one object" if len(rows) == 1 else f"{len(objects):,} objects"
        return f"holds {what} with the fields {_names(fields)}: rename them, or write them anew"
    if not isinstance(row, Unusable):
        return f"holds no objects: {origin} is {shown(row)}"
    head = next(line for line in text.split("\n") if line.strip())[:4096].strip()
    columns = re.split(r"[,;\t]", head)
    if len(columns) > 1 and head[0] not in "{[":
        return f"looks like a table (CSV) with the columns {_names(columns)}"
    return f"holds no JSON objects: {origin} is {row}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(shown(name.strip(' "')) for name in names[:NAMED]) + more
