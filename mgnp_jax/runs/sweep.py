"""The trade-off between size and faithfulness: one circuit at each of several prices."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mgnp_jax.files import write_csv
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_HIDDEN
from mgnp_jax.report.figures import trade_off
from mgnp_jax.report.tables import Table
from mgnp_jax.report.text import save_picture
from mgnp_jax.runs.config import RunConfig, named_after
from mgnp_jax.runs.run import ensured
from mgnp_jax.runs.spread import at_work_on_all, shared_out

COLUMNS = {
    "price": "{:.3g}",
    "parameters %": "{:.1f}",
    "heads %": "{:.1f}",
    "MLP hidden %": "{:.1f}",
    "edges %": "{:.2f}",
    "KL": "{:z.4f}",
    "score": "{:.3f}",
    "model's score": "{:.3f}",
    "accuracy": "{:.3f}",
}


def row_of(results: dict[str, Any], price: float) -> dict[str, float]:
    """One circuit of a sweep.

    Args:
      results: of its run.
      price: scale of all prices.

    Returns:
      Figures by the names of `COLUMNS`: shares kept in percent, metrics on test prompts.
    """

    def kept(size: dict[str, Any]) -> float:
        return 100 - size["sparsity"]

    values = (
        price,
        100 * results["parameters"]["prunable_kept"],
        kept(results["sizes"][ATTENTION_HEADS]),
        kept(results["sizes"][MLP_HIDDEN]),
        kept(results["edges"]),
        results["circuit"]["kl"],
        results["circuit"]["score"],
        results["base"]["score"],
        results["circuit"]["accuracy"],
    )
    return dict(zip(COLUMNS, values, strict=True))


def sweep(config: RunConfig, points: int, console: Console) -> list[dict[str, float]]:
    """Runs what is missing, writes trade-off.csv and trade-off.png, prints the table.

    Args:
      config: of the run at the price that is set.
      points: how many prices.
      console: where to report.

    Returns:
      A row for each price, from the cheapest; of several processes, in the first.
    """
    source = Path(config.source).stem
    name = f"sweep-{source}-{Path(config.model).name}{named_after(config.method)}-seed{config.seed}"
    out = config.out or Path("runs") / name
    wanted = _wanted(config, points, out)
    with at_work_on_all(out) as stop:
        stop.told = "the runs that are done are kept"
        if not shared_out([lambda: [(ensured, (run,)) for run in dict(wanted).values()]], stop):
            return []
        return _sweep(config, wanted, source, out, console)


def _wanted(config: RunConfig, points: int, out: Path) -> list[tuple[float, RunConfig]]:
    """Prices and their runs; prices that are too near to tell apart share one."""
    found = []
    for factor in np.geomspace(1 / config.sweep_span, config.sweep_span, points):
        price = float(f"{config.config.penalty * factor:.4g}")
        run = dataclasses.replace(
            config,
            sweep=None,
            out=out / f"price-{price:g}",
            config=dataclasses.replace(config.config, penalty=price),
        )
        found.append((price, run))
    return found


def _sweep(
    config: RunConfig,
    wanted: list[tuple[float, RunConfig]],
    source: str,
    out: Path,
    console: Console,
) -> list[dict[str, float]]:
    rows = [row_of(ensured(run, console), price) for price, run in wanted]
    values = [[row[name] for name in COLUMNS] for row in rows]
    write_csv(out / "trade-off.csv", list(COLUMNS), values)
    figure = trade_off(
        [row["parameters %"] for row in rows],
        [row["KL"] for row in rows],
        [row["score"] / (row["model's score"] or math.nan) for row in rows],
        f"{source} on {config.model}",
    )
    save_picture(figure, out / "trade-off.png")
    table = Table(
        title=f"What is kept, and what it costs: {source} on {config.model}",
        columns=tuple(COLUMNS),
        rows=tuple(tuple(form.format(row[n]) for n, form in COLUMNS.items()) for row in rows),
    )
    console.print(table.rich())
    console.print(f"Saved to {out} (trade-off.csv, trade-off.png)", highlight=False)
    return rows
