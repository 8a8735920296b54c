"""A run's figures as one table that fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich.box
import rich.table
from rich.text import Text

from mgnp_jax.report.tables import (
    MEASURED,
    curve_table,
    faithfulness_table,
    size_table,
)
from mgnp_jax.report.text import printable
from mgnp_jax.tasks.problems import many

FAILING = {"random": "Random", "complement": "Rest", "empty": "Nothing"}
"""Headings of circuits that should fail: random nodes, all but the circuit's, none."""


def summary(results: Mapping[str, Any]) -> rich.table.Table:
    """What is kept, what it does beside circuits that should fail, and a ranking's curve.

    Args:
      results: as in results.json.
    """
    size, controls = size_table(results), results["controls"]
    table = rich.table.Table(
        title=_text(f"{results['task']} on {results['model']} by {results['method']}"),
        title_justify="left",
        title_style="bold",
        caption=_text(f"{size.title}. {_prompts(results)}"),
        caption_justify="left",
        box=rich.box.SIMPLE,
        show_header=False,
        show_edge=False,
        pad_edge=False,
    )
    measured = faithfulness_table(results)
    beside = {
        label: [f"{controls[name][figure]:z.4f}" for name in FAILING]
        for figure, label in MEASURED.items()
    }
    rows = [(*row, *beside.get(row[0], ())) for row in measured.rows]
    sections = [(size.columns, size.rows), ((*measured.columns, *FAILING.values()), rows)]
    if "curve" in results:
        curve = curve_table(results["curve"], controls["circuit"]["prompts"])
        sections.append((curve.columns, curve.rows))
    for i in range(max(len(columns) for columns, _ in sections)):
        table.add_column(justify="right" if i else "left")
    for columns, rows in sections:
        table.add_row(*map(_text, columns), style="bold")
        for row in rows:
            table.add_row(*map(_text, row))
        table.add_section()
    return table


def _text(cell: str) -> Text:
    return Text(printable(cell))


def _prompts(results: Mapping[str, Any]) -> str:
    """On which prompts the figures are."""
    prompts, some = results["circuit"]["prompts"], results["controls"]["circuit"]["prompts"]
    told = f"{many(prompts, 'test prompt')}, of which the model answers "
    told += f"{results['answered']['prompts']:,}"
    if some < prompts:
        sizes = ", other sizes" if "curve" in results else ""
        told += f"; random, rest, nothing{sizes}: the first {some:,}"
    if train := results.get("train"):
        told += f"; training: {train['prompts']:,}"
    return f"{told}; KL in nats."
