"""Several methods before the same decoys: each compared apart, then all in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.report.decoys import methods_tables, notes_on
from mgnp_jax.report.text import markdown
from mgnp_jax.runs.decoy_config import REFERENCE, DecoyConfig
from mgnp_jax.runs.decoys import decoys, write_figures
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.own_process import apart
from mgnp_jax.runs.stopping import Stop


def decoys_by_method(config: DecoyConfig, console: Console) -> dict[str, Any]:
    """Runs the comparison of one method, or of several.

    Args:
      config: what to compare.
      console: where to report.

    Returns:
      The figures, as in decoys.json.
    """
    if config.methods is None:
        check_device()
        return decoys(config, console)
    with at_work(config.folder) as stop:
        stop.told = "the circuits that were found are kept"
        return _of_methods(config, config.folder, stop, console)


def _of_methods(config: DecoyConfig, out: Path, stop: Stop, console: Console) -> dict[str, Any]:
    """Each in a process of its own, the reference first: others are as large as its circuits."""
    results = []
    for name in config.names:
        like = None if name == REFERENCE else (out / REFERENCE).resolve()
        results.append(apart(decoys, config.of(name, out / name, like), stop=stop))
    found = {"task": config.task, "seed": config.seed, "methods": results}
    write_figures(config, found)
    tables, notes = methods_tables(results), notes_on(results, REFERENCE)
    for table in tables:
        console.print(table.rich())
    for note in notes:
        console.print(note, highlight=False, markup=False)
    parts = [table.markdown() for table in tables]
    title = f"# Nodes that cannot matter: {markdown(config.task)}"
    write_whole(out / "decoys.md", "\n\n".join([title, *map(markdown, notes), *parts]) + "\n")
    console.print(f"Saved to {out} (decoys.md, decoys.json)", highlight=False, markup=False)
    return found
