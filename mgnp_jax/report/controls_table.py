"""What a circuit is put beside to see whether it is real → a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgnp_jax.report.tables import Table


def real_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row for each control, with what it should look like if the circuit is real.

    Args:
      rows: as in controls.json.
      title: above it.
    """

    def written(row: Mapping[str, Any], form: str, *names: str) -> str:
        values = [row.get(name) for name in names]
        return "–" if None in values else form.format(*values)

    cells = [
        (
            row["control"],
            row["should"],
            written(row, "{}", "heads"),
            written(row, "{:.1%}", "prunable_kept"),
            written(row, "{:z.4f}", "kl"),
            written(row, "{:.3f} / {:.3f}", "accuracy", "base_accuracy"),
            written(row, "{:.2f} / {:.2f}", "overlap_heads", "overlap_hidden"),
        )
        for row in rows
    ]
    sizes = ("Heads", "Parameters kept")
    figures = ("KL, nats", "Accuracy / model's", "Overlap: heads / hidden")
    columns = ("", "If the circuit is real", *sizes, *figures)
    return Table(title=title, columns=columns, rows=tuple(cells))
