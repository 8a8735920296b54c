"""Methods side by side on one bench: each found as it is meant, then measured at one size."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mgnp_jax.files import write_csv, write_whole
from mgnp_jax.report.comparison import tables_of, wins
from mgnp_jax.report.comparison_page import comparison_figure, page
from mgnp_jax.report.controls_table import real_table
from mgnp_jax.report.page.html import PAGE
from mgnp_jax.report.text import save_picture
from mgnp_jax.runs.compare_config import CompareConfig
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.control_searches import SEARCHES, searched
from mgnp_jax.runs.controls import Controls, controls_measured
from mgnp_jax.runs.matched import Bench, measured
from mgnp_jax.runs.own_process import apart
from mgnp_jax.runs.run import ensured
from mgnp_jax.runs.show import ShowConfig, show
from mgnp_jax.runs.spread import Unit, at_work_on_all, shared_out
from mgnp_jax.runs.stopping import Stop
from mgnp_jax.tasks.task import EXTRA_CORRUPTIONS
from mgnp_jax.types import MgnpError


def compare(config: CompareConfig, console: Console) -> list[dict[str, Any]]:
    """Runs what is missing; writes comparison.json, curves.csv, comparison.png and README.md.

    Every run and every seed's measuring is a process of its own, so that times and peaks are those
    of one method.

    Args:
      config: what to compare.
      console: where to report.

    Returns:
      The rows of comparison.json: a circuit each; of several processes, in the first.
    """
    out = config.out or Path("runs") / f"compare-{config.source}-{Path(config.model).name}"
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    with at_work_on_all(out) as stop:
        stop.told = "the runs that are done are kept"
        if not shared_out(_stages(config, seeds, out), stop):
            return []
        found = []
        for seed in seeds:
            found += _of_seed(config, seed, out, stop)
        # First without the controls, whatever becomes of these.
        _write(config, out, found, [], console)
        first, *others = (Path(str(run.out)) for run in config.runs_of(config.first_seed, out))
        shown = ShowConfig(circuit=first, compare=tuple(others), out=out / PAGE, evidence_prompts=0)
        apart(show, shown, stop=stop)
        if config.controls:
            _write(config, out, found, _controls(config, out, stop), console)
        told = "open index.html, or README.md; comparison.json, curves.csv, comparison.png"
        console.print(f"Saved to {out} ({told})", highlight=False, markup=False)
        return [row for each in found for row in each["rows"]]


def _stages(
    config: CompareConfig, seeds: Sequence[int], out: Path
) -> list[Callable[[], list[Unit]]]:
    """What several processes share out: references, what is as large as these, measuring."""
    others: list[Callable[[], list[Unit]]] = []
    if config.controls:
        first = _reference(config, seeds[0], out)
        searches = [(searched, (name, first, f)) for name, f in _searches(config, out).items()]
        others.append(lambda: [*searches])
    return [
        lambda: [(ensured, (_reference(config, seed, out),)) for seed in seeds],
        lambda: [(ensured, (run,)) for seed in seeds for run in config.runs_of(seed, out)[1:]],
        lambda: [(measured, (_bench(config, seed, out),)) for seed in seeds],
        *others,
    ]


def _reference(config: CompareConfig, seed: int, out: Path) -> RunConfig:
    return config.run_of(config.reference, seed, out / f"{config.reference}-seed{seed}")


def _bench(config: CompareConfig, seed: int, out: Path) -> Bench:
    return Bench(
        runs=tuple(config.runs_of(seed, out)),
        matched=out / "matched",
        figures=out / "figures",
        curve_prompts=config.curve_prompts,
    )


def _searches(config: CompareConfig, out: Path) -> dict[str, Path]:
    return {name: out / "controls" / f"{name}-seed{config.first_seed}" for name in SEARCHES}


def _of_seed(config: CompareConfig, seed: int, out: Path, stop: Stop) -> list[dict[str, Any]]:
    """Finds and measures every method's circuit of one seed."""
    apart(ensured, _reference(config, seed, out), stop=stop)
    for run in config.runs_of(seed, out)[1:]:
        apart(ensured, run, stop=stop)
    return apart(measured, _bench(config, seed, out), stop=stop)


def _controls(config: CompareConfig, out: Path, stop: Stop) -> list[dict[str, Any]]:
    """Searches and measures what the reference's circuit of the first seed is put beside."""
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    ours = [_reference(config, seed, out) for seed in seeds]
    beside = out / "controls"
    tasks, missing = {}, {}
    for name in config.other_tasks:
        folder = beside / f"{name}-seed{config.first_seed}"
        # Another task may not have as many prompts as were asked for of this one.
        own = {"train_prompts": None, "extra_corruptions": EXTRA_CORRUPTIONS}
        run = dataclasses.replace(ours[0], task=name, data=None, skip_bad=False, out=folder, **own)
        try:
            apart(ensured, run, stop=stop)
            tasks[name] = folder
        except MgnpError as error:
            # Such as a tokenizer that lacks its words, which is no reason to have no controls.
            missing[name] = str(error)
    searches = _searches(config, out)
    for name, folder in searches.items():
        apart(searched, name, ours[0], folder, stop=stop)
    controls = Controls(
        run=ours[0],
        seeds=tuple(Path(str(run.out)) for run in ours[1:]),
        tasks=tasks,
        searches=searches,
        missing=missing,
        file=out / "figures" / "controls.json",
    )
    return apart(controls_measured, controls, stop=stop)


def _write(
    config: CompareConfig,
    out: Path,
    found: list[dict[str, Any]],
    controls: list[dict[str, Any]],
    console: Console,
) -> None:
    """Writes the page, and what it shows; prints what was not printed before."""
    rows = [row for each in found for row in each["rows"]]
    tables, sentences = tables_of(rows, config.reference), wins(rows, config.reference)
    shown = tables
    if controls:
        text = json.dumps(controls, indent=2, allow_nan=False)
        write_whole(out / "controls.json", text + "\n")
        asked = f"Is the circuit real? {config.reference}, seed {config.first_seed}"
        shown = [real_table(controls, asked)]
        tables = [*tables, *shown]
    else:
        _write_figures(config, out, rows, found)
    told = page(
        _title(config),
        sentences,
        tables,
        reference=config.reference,
        command=config.command,
        test_prompts=[each["prompts"]["test"] for each in found],
        curve_prompts=[each["prompts"]["curve"] for each in found],
    )
    write_whole(out / "README.md", told)
    for table in shown:
        console.print(table.rich())
    for sentence in () if controls else sentences:
        console.print(sentence, highlight=False, markup=False)


def _title(config: CompareConfig) -> str:
    return f"{config.source} on {config.model}"


def _write_figures(
    config: CompareConfig, out: Path, rows: list[dict[str, Any]], found: list[dict[str, Any]]
) -> None:
    text = json.dumps(rows, indent=2, allow_nan=False)
    write_whole(out / "comparison.json", text + "\n")
    curve = [row for each in found for row in each["curve"]]
    columns = list(dict.fromkeys(name for row in curve for name in row))
    write_csv(out / "curves.csv", columns, [[row[name] for name in columns] for row in curve])
    save_picture(comparison_figure(rows, curve, _title(config)), out / "comparison.png")
