"""The paper's protocol for one model: every task, several seeds, its tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from mgnp_jax.files import write_csv, write_whole
from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.methods import DEFAULT
from mgnp_jax.report import paper
from mgnp_jax.report.tables import Table, layer_table
from mgnp_jax.report.text import markdown, save_picture
from mgnp_jax.runs.config import RunConfig, checked_method, named_after
from mgnp_jax.runs.run import ensured
from mgnp_jax.runs.spread import at_work_on_all, shared_out
from mgnp_jax.tasks import TASKS
from mgnp_jax.types import Masks, MgnpError

NUMBERED = {"ioi": "Table 4", "gp": "Table 5", "gt": "Table 6", "gt-other": "Table 6"}
"""The paper's tables of what is kept in each layer."""

Runs = dict[str, list[dict[str, Any]]]
"""Results of every seed, by task."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """Runs all tasks and seeds on one model and writes the paper's tables."""

    model: str = "gpt2-mini"
    """As for experiments.run."""
    tasks: tuple[str, ...] = ("ioi", "gt", "gp")
    """Built-in tasks."""
    seeds: int = 3
    """Seeds 0, 1, …"""
    out: Path | None = None
    """Folder for runs and tables, by default runs/paper-MODEL; finished runs in it are kept."""
    test_prompts: int | None = None
    """Measure on the first so many test prompts only; all of them by default."""
    prefix: str | None = None
    """As for experiments.run."""
    method: str = ""
    """How circuits are found, by name; decides which further flags there are."""
    config: Any = DEFAULT()
    """The method's own: one configuration for all."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise MgnpError(f"--tasks must be some of {', '.join(TASKS)}, got {self.tasks}")
        object.__setattr__(self, "method", checked_method(self.method, self.config))
        if self.seeds < 1:
            raise MgnpError(f"--seeds must be at least 1, got {self.seeds}")


def protocol(config: PaperConfig, console: Console) -> Runs:
    """Runs what is missing and writes tables.md, runs.csv, overlap.csv and trade-off.png.

    Args:
      config: what to run.
      console: where to report.

    Returns:
      Results of every seed, by task; of several processes, in the first, and nothing in others.
    """
    out = (
        config.out or Path("runs") / f"paper-{Path(config.model).name}{named_after(config.method)}"
    )
    wanted = _wanted(config, out)
    with at_work_on_all(out) as stop:
        stop.told = "the runs that are done are kept"
        if not shared_out([lambda: [(ensured, (run,)) for run in wanted.values()]], stop):
            return {}
        return _protocol(config, wanted, out, console)


def _wanted(config: PaperConfig, out: Path) -> dict[tuple[str, int], RunConfig]:
    """All runs, by task and seed."""
    return {
        (task, seed): RunConfig(
            task=task,
            model=config.model,
            method=config.method,
            seed=seed,
            out=out / f"{task}-seed{seed}",
            test_prompts=config.test_prompts,
            prefix=config.prefix,
            config=config.config,
        )
        for task in config.tasks
        for seed in range(config.seeds)
    }


def _protocol(
    config: PaperConfig, wanted: dict[tuple[str, int], RunConfig], out: Path, console: Console
) -> Runs:
    runs: Runs = {}
    circuits: dict[tuple[str, int], Masks] = {}
    for (task, seed), run in wanted.items():
        runs.setdefault(task, []).append(ensured(run, console))
        circuits[task, seed] = load_circuit(str(run.out)).masks
    for table in _write(out, config, runs, circuits):
        console.print(table.rich())
    console.print(f"Saved to {out} (tables.md, runs.csv, overlap.csv)", highlight=False)
    return runs


def _write(
    out: Path, config: PaperConfig, runs: Runs, circuits: dict[tuple[str, int], Masks]
) -> list[Table]:
    """Writes tables and figure; returns the tables that are worth printing."""
    published = config.model == "gpt2"
    tables = [
        paper.sizes_table(runs, published=published),
        paper.faithfulness_table(runs, published=published),
        paper.overlap_table(circuits),
    ]
    # The paper's order, then tasks that it does not have.
    order = sorted(config.tasks, key=lambda task: NUMBERED.get(task, "Table 7"))
    layers = [
        layer_table(
            circuits[task, 0],
            f"{NUMBERED.get(task, 'Table')}. {task}, seed 0, by layer (from 1)",
            first=1,
        )
        for task in order
    ]
    text = "\n\n".join(table.markdown() for table in (*tables, *layers))
    page = (
        f"# The paper's protocol on {markdown(config.model)}\n\n{text}\n\nThe layers of other "
        "seeds stand in the README.md of each run's folder.\n"
    )
    write_whole(out / "tables.md", page)
    rows = paper.rows_of(runs)
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(out / "runs.csv", names, [[row.get(name) for name in names] for row in rows])
    write_csv(out / "overlap.csv", tables[2].columns, tables[2].rows)
    figure = paper.trade_off_figure(runs, f"Circuits of {config.model}")
    save_picture(figure, out / "trade-off.png")
    return tables
