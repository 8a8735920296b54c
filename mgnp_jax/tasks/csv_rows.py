"""A table as text → rows by column, each with where it stands."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from mgnp_jax.tasks.layouts import FIELDS, Unusable

DELIMITERS = ",;\t"
NOT_CSV = "not CSV"
"""Cause of a row's being unusable."""
LISTS = FIELDS[1:]
"""Columns whose cells may be JSON lists of texts; a bare text is one."""


def table_rows(text: str, name: str) -> list[tuple[str, Any]] | None:
    """Reads comma-, semicolon- or tab-separated values with a header.

    Args:
      text: of the file.
      name: of the file.

    Returns:
      Where each row begins, and its non-empty cells by column, an exception for what is no row of
      the table; None if the first line is no header.
    """
    head = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(DELIMITERS, key=head.count)
    if delimiter not in head or head.lstrip()[0] in "{[":
        return None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[tuple[str, Any]] = []
    columns: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return found
        except csv.Error as error:
            found.append((f"{name}:{line}", Unusable(f"not CSV ({error})", NOT_CSV)))
            continue
        if not any(cells):
            continue
        if not columns:
            columns = [cell.strip() for cell in cells]
            named = [column for column in columns if column]
            if len({*named}) < len(named):
                return None
            continue
        found.append((f"{name}:{line}", _row(columns, cells)))


def _row(columns: list[str], cells: list[str]) -> Any:
    if len(cells) != len(columns):
        told = f"has {len(cells)} cells where the header has {len(columns)}"
        return Unusable(told, NOT_CSV)
    # A column without a name is an index that a program has put there.
    row: dict[str, Any] = {column: cell for column, cell in zip(columns, cells) if column and cell}
    for column in LISTS:
        if column in row:
            row[column] = _listed(row[column], column)
    return row


def _listed(cell: str, column: str) -> Any:
    if cell.startswith("["):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list):
            return value
    return cell if column == "corrupted" else [cell]
