"""What is left of a search in a run's folder: the circuit measured, saved, printed."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.levels import level_of
from mgnp_jax.masks.ranking import RANKING
from mgnp_jax.metrics.evaluate import evaluate, evaluate_all
from mgnp_jax.metrics.sanity import check_circuit, check_controls
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.passes.settings import execution_of
from mgnp_jax.report import run_folder
from mgnp_jax.report.page.content import Shown, content_of
from mgnp_jax.report.page.html import PAGE, write_page
from mgnp_jax.report.summary import summary
from mgnp_jax.report.votes import votes_of
from mgnp_jax.runs.beside import every_size, rows_of
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.loading import Loaded
from mgnp_jax.runs.measuring import controls_of, evaluate_with_bar

STATES = "resume"
"""Where in a run's folder lies what it can be gone on from, until it is done."""


def forget_states(folder: Path) -> None:
    """Removes what a run that is done was gone on from.

    Args:
      folder: of the run.
    """
    # The run is done, whatever of this cannot be removed.
    shutil.rmtree(folder / STATES, ignore_errors=True)


def warn(warnings: Sequence[str], console: Console) -> None:
    """Prints warnings.

    Args:
      warnings: a sentence each.
      console: where.
    """
    for text in warnings:
        console.print(f"Warning: {text}", style="yellow", highlight=False, markup=False)


def with_warnings(circuit: Circuit, warnings: Sequence[str]) -> Circuit:
    """The circuit with more sentences that are to be read beside its figures.

    Args:
      circuit: the circuit.
      warnings: a sentence each.
    """
    all_of_them = [*circuit.metadata.get("warnings", []), *warnings]
    return dataclasses.replace(circuit, metadata={**circuit.metadata, "warnings": all_of_them})


def measure_and_save(
    config: RunConfig, circuit: Circuit, loaded: Loaded, folder: Path, console: Console
) -> dict[str, Any]:
    """Results of a circuit, which it leaves in the run's folder and prints.

    Args:
      config: of the run.
      circuit: that was found.
      loaded: the model and its prompts.
      folder: of the run.
      console: where to report.

    Returns:
      As in results.json.
    """
    model, data, test = loaded
    if note := circuit.metadata.get("note"):
        console.print(note, highlight=False)
    figures = evaluate_with_bar(model, circuit, test, console)
    sizes = circuit_sizes(model.config, circuit.masks)
    first = slice(config.control_prompts)
    some = test.of_pairs(first)
    others = controls_of(model.config, circuit, config.seed)
    ranked = every_size(model.config, circuit) if RANKING in circuit.metadata else {}
    # All on the same prompts, whose plain passes run once.
    beside = evaluate_all(model, {**ranked, **others}, some)
    controls = {name: beside[name] for name in others}
    level = level_of(circuit.masks)
    warned = [*check_circuit(sizes, level), *check_controls(controls)]
    circuit = with_warnings(circuit, warned)
    results = run_folder.results_of(circuit, config.seed, sizes, figures)
    results["controls"] = controls
    results["train"] = run_folder.measured(evaluate(model, circuit, data.train.of_pairs(first)))
    if ranked:
        results["curve"] = rows_of(model, ranked, circuit, beside)
    rankings = circuit.metadata.get("settings", {}).get("votes")
    if circuit.votes is not None and rankings:
        results["votes"] = votes_of(circuit, rankings)
    more = {"test_prompts": config.test_prompts, "seed": config.seed, "figures": figures}
    metadata = {**circuit.metadata, **more}
    nodes = level.nodes(model.config, circuit.masks)
    kept = dataclasses.replace(circuit, metadata=metadata)
    shown = Shown(folder.resolve().name, kept, results, results.get("curve", ()))
    write_page(folder / PAGE, content_of(shown, model.config))
    run_folder.write(folder, kept, nodes, results)
    forget_states(folder)
    console.print(summary(results))
    warn(warned, console)
    told = f"Saved to {folder}: open {folder / PAGE}"
    if execution_of(config.config).shard == 1:
        again = f"python -m experiments.show --circuit {shlex.quote(str(folder))}"
        told += f"; {again} adds what each node does"
    console.print(
        told,
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return results
