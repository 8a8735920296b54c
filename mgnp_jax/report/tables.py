"""The paper's tables for one run, for the terminal and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.table
from rich.text import Text

from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
    TABLE,
)
from mgnp_jax.report.text import markdown, printable
from mgnp_jax.tasks.problems import many

LABELS = {name: kind.label for name, kind in TABLE.items()}
"""Granularities as a reader calls them."""


CONTROLS = {
    "random": "Random, as many nodes of every kind",
    "complement": "Everything but the circuit",
    "empty": "Nothing kept",
}
"""Controls as a reader calls them."""

MEASURED = {"score": "Score", "accuracy": "Accuracy", "kl": "KL(model ‖ circuit)"}
"""Figures that controls are measured by, as a reader calls them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a title.

    Attributes:
      title: what the table shows.
      columns: headings; the first column is flush left, the others right.
      rows: cells, as many a row as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in GitHub's Markdown, its title in bold above."""
        lines = [f"**{markdown(self.title)}**", "", _row(self.columns)]
        lines.append("|---|" + "---:|" * (len(self.columns) - 1))
        return "\n".join(lines + [_row(row) for row in self.rows])

    def rich(self) -> rich.table.Table:
        """The table for a terminal."""
        title = Text(printable(self.title), style="table.title")
        table = rich.table.Table(title=title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(Text(printable(column)), justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def size_table(results: Mapping[str, Any]) -> Table:
    """Table 1: nodes kept per granularity, then parameters and edges.

    Args:
      results: as in results.json.
    """
    rows = [
        (label, f"{s['active']:,}", f"{s['total']:,}", f"{s['sparsity']:.1f}")
        for label, s in ((LABELS[name], size) for name, size in results["sizes"].items())
    ]
    edges, parameters = results["edges"], results["parameters"]
    rows.append(
        ("Edges", f"{edges['active']:,}", f"{edges['total']:,}", f"{edges['sparsity']:.2f}")
    )
    share = 100 * (1 - parameters["active"] / parameters["total"])
    rows.append(
        ("Parameters", f"{parameters['active']:,}", f"{parameters['total']:,}", f"{share:.1f}")
    )
    title = (
        f"Circuit size (parameters compressed {parameters['compression_ratio']:.2f} ×; of the "
        f"prunable ones {100 * parameters['prunable_kept']:.1f} % kept)"
    )
    return Table(title=title, columns=("Granularity", "Kept", "Of", "Sparsity %"), rows=tuple(rows))


def faithfulness_table(results: Mapping[str, Any]) -> Table:
    """Table 2: the circuit beside the full model, on all test prompts and on those answered.

    Args:
      results: as in results.json.
    """
    base, circuit, answered = results["base"], results["circuit"], results["answered"]
    rows = [
        (MEASURED["score"], *(f"{d['score']:z.4f}" for d in (base, circuit))),
        (MEASURED["accuracy"], *(f"{d['accuracy']:z.4f}" for d in (base, circuit))),
        (MEASURED["kl"], "–", f"{circuit['kl']:z.4f}"),
        ("Same top token", "–", f"{circuit['exact_match']:z.4f}"),
    ]
    for name in sorted(k for k in circuit if k.startswith("kl_")):
        rows.insert(3, (f"{name}, nats", "–", f"{circuit[name]:z.4f}"))
    for name, value in circuit.get("other_scores", {}).items():
        rows.insert(1, (name, f"{base['other_scores'][name]:z.4f}", f"{value:z.4f}"))
    if answered["prompts"]:
        rows += [
            ("Score, answered", f"{answered['base_score']:z.4f}", f"{answered['score']:z.4f}"),
            ("KL, answered", "–", f"{answered['kl']:z.4f}"),
        ]
    if train := results.get("train"):
        accuracy = f"{train['base_accuracy']:z.4f}", f"{train['accuracy']:z.4f}"
        rows += [("Accuracy, training", *accuracy), ("KL, training", "–", f"{train['kl']:z.4f}")]
    title = (
        f"Faithfulness on {many(circuit['prompts'], 'test prompt')} "
        f"(answered: the {answered['prompts']:,} that the model gets right; KL in nats)"
    )
    return Table(title=title, columns=("", "Model", "Circuit"), rows=tuple(rows))


def controls_table(results: Mapping[str, Any]) -> Table:
    """A random circuit of the same size and what the circuit leaves out: both should fail.

    Args:
      results: as in results.json.
    """
    found = results["controls"]
    labels = {"circuit": "The circuit", **CONTROLS}
    return Table(
        title=(
            "Does the circuit mean something? On the first "
            f"{many(found['circuit']['prompts'], 'test prompt')}; KL in nats"
        ),
        columns=("", *MEASURED.values()),
        rows=tuple(
            (label, *(f"{found[name][figure]:z.4f}" for figure in MEASURED))
            for name, label in labels.items()
        ),
    )


def curve_table(curve: Sequence[Mapping[str, Any]], prompts: int) -> Table:
    """What circuits of every size lose, all cut from one ranking.

    Args:
      curve: rows as in results.json, from the smallest circuit.
      prompts: test prompts that they are measured on.
    """
    return Table(
        title=f"Circuits of every size, on the first {many(prompts, 'test prompt')}",
        columns=("Parameters kept %", "Heads", "Edges gone %", "KL, nats", "Score", "Accuracy"),
        # Several sizes may have one circuit.
        rows=tuple(
            (
                f"{100 * row['prunable_kept']:.2f}",
                f"{row['heads']:,.0f}" if "heads" in row else "–",
                f"{row['edge_sparsity']:.2f}",
                *(f"{row[figure]:z.4f}" for figure in ("kl", "score", "accuracy")),
            )
            for row in {row["prunable_kept"]: row for row in curve}.values()
        ),
    )


def layer_table(
    masks: Mapping[str, Any], title: str = "Kept in each layer", first: int = 0
) -> Table:
    """What is kept in each layer, as in tables 4 to 6.

    Args:
      masks: bool arrays by granularity.
      title: above the table.
      first: number of the first layer; the paper counts from 1.
    """
    kept = {name: np.asarray(mask) for name, mask in masks.items()}
    rows = []
    for layer in range(len(kept[ATTENTION_BLOCKS])):
        blocks = [
            "active" if kept[name][layer] else "pruned" for name in (ATTENTION_BLOCKS, MLP_BLOCKS)
        ]
        counts = [
            f"{kept[name][layer].sum()}/{kept[name][layer].size}"
            for name in (ATTENTION_HEADS, ATTENTION_NEURONS, MLP_HIDDEN, MLP_OUTPUT)
        ]
        rows.append((str(first + layer), *blocks, *counts))
    columns = ("Attn block", "MLP block", "Heads", "Attn neurons", "MLP hidden", "MLP output")
    return Table(title=title, columns=("Layer", *columns), rows=tuple(rows))


def comparison_table(figures: Mapping[str, Any], saved: Mapping[str, Any] | None) -> Table:
    """Figures measured now beside those saved with the circuit.

    Args:
      figures: as `evaluate` returned them.
      saved: the same from the run; None if they were on other prompts.
    """
    names = [name for name, value in figures.items() if isinstance(value, float)]

    def text(value: Any) -> str:
        return f"{value:z.6f}" if isinstance(value, float | int) else "–"

    rows = [
        (name, text(figures[name]), *([text(saved.get(name))] if saved else []))
        for name in sorted(names)
    ]
    columns = ("", "Measured", *(["Saved"] if saved else []))
    return Table(title=many(figures["prompts"], "test prompt"), columns=columns, rows=tuple(rows))
