"""The main job: find one circuit, measure it, save it with tables and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import gate_count
from mgnp_jax.masks.levels import level_of
from mgnp_jax.masks.ranking import RANKING
from mgnp_jax.methods.discover import discover
from mgnp_jax.methods.protocol import Interrupted
from mgnp_jax.metrics.sanity import check_circuit, check_task
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.hub import Model
from mgnp_jax.models.mesh import mesh_of
from mgnp_jax.report import run_folder
from mgnp_jax.report.page.content import Shown, content_of
from mgnp_jax.report.page.html import PAGE, write_page
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.runs.beside import curve_of
from mgnp_jax.runs.config import RunConfig, finished, named_after, settings_text
from mgnp_jax.runs.folder import (
    RESULTS,
    SETTINGS,
    at_work,
    begun,
    check_free,
    last_default,
    new_default,
    undone,
)
from mgnp_jax.runs.loading import Loaded, load
from mgnp_jax.runs.measuring import controls_of, evaluate_with_bar
from mgnp_jax.runs.record_log import RecordLog
from mgnp_jax.runs.states import States
from mgnp_jax.runs.stopping import Stop, Stopped
from mgnp_jax.tasks import check_source
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, MgnpError, Record

STATES = "resume"
"""Where in a run's folder lies what it can be gone on from, until it is done."""


def run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Runs the main job, or goes on with it.

    Args:
      config: what to do.
      console: where to report.

    Returns:
      The results, as in results.json.

    Raises:
      Stopped: if a signal ended it, with what it can be gone on from put aside.
      MgnpError: for a mistake of the user's, or a folder that cannot be written to.
    """
    check_source(config.source)
    if hasattr(config.config, "execution"):
        mesh_of(config.config.execution.devices, config.config.execution.shard)
    source = Path(config.source).stem if config.data else config.source
    name = f"{source}-{Path(config.model).name}{named_after(config.method)}-seed{config.seed}"
    loaded = None
    if config.resume:
        folder = config.out or last_default(name)
        if not begun(folder):
            raise MgnpError(
                f"there is nothing to go on with in {folder}: no run was begun there; leave "
                "--resume away to begin one, or pass the --out of another"
            )
    elif config.out is not None:
        folder = config.out
        if not begun(folder):
            check_free(folder)
    else:
        # First, so that a mistake leaves no folder behind.
        loaded = load(config)
        with contextlib.suppress(MgnpError):
            if undone(last := last_default(name)):
                console.print(f"{last} holds a run that is not done (--resume goes on with it)")
        folder = new_default(name)
    place = ("--out", str(folder)) if config.out is None else ()
    again = () if config.resume else (*place, "--resume")
    with at_work(folder, again) as stop:
        if not config.resume:
            check_free(folder)
        elif (results := finished(folder, config)) is not None:
            _forget_states(folder)
            console.print(f"{folder} is done already; its figures are in {folder / RESULTS}")
            return results
        return _run(config, loaded or load(config), folder, stop, console)


def ensured(config: RunConfig, console: Console) -> dict[str, Any]:
    """Results of a run that is done, or is gone on with, or begun.

    Args:
      config: what to do, with the folder to do it in.
      console: where to report.

    Raises:
      Stopped: if a signal ended it; called again, it goes on.
      MgnpError: as `run` does; for a folder that holds a run with other settings, too.
    """
    assert config.out is not None
    if (results := finished(config.out, config)) is not None:
        _forget_states(config.out)
        return results
    try:
        return run(dataclasses.replace(config, resume=begun(config.out)), console)
    except Stopped as stopped:
        stopped.again = ()
        raise


def _forget_states(folder: Path) -> None:
    # The run is done, whatever of this cannot be removed.
    shutil.rmtree(folder / STATES, ignore_errors=True)


def _run(
    config: RunConfig, loaded: Loaded, folder: Path, stop: Stop, console: Console
) -> dict[str, Any]:
    """Searches, measures and saves, in a folder that is this process's alone."""
    model, data, test = loaded
    if not config.resume:
        write_whole(folder / SETTINGS, settings_text(config))
    _say_prompts(config, model, data, folder, console)
    warned = check_task(model, data.validation)
    _warn(warned, console)
    try:
        circuit = _find(config, model, data, folder, stop, console)
    except Interrupted as stopped:
        found = _with_warnings(stopped.circuit, warned)
        kept = {**found.metadata, "test_prompts": config.test_prompts}
        run_folder.save_circuit(folder, dataclasses.replace(found, metadata=kept))
        told = "the best circuit so far, not measured, is in circuit/"
        stop.told = ", ".join(filter(None, (stop.told, told)))
        raise
    found = _with_warnings(circuit, warned)
    return _measure_and_save(config, model, found, test, folder, console)


def _say_prompts(
    config: RunConfig, model: Model, data: TaskData, folder: Path, console: Console
) -> None:
    counts = " / ".join(f"{n:,}" for n in data.counts().values())
    console.print(
        f"{data.name} on {config.model}: {counts} training / validation / test prompts, "
        f"{gate_count(model.config):,} nodes, {config.method} on {jax.devices()[0].device_kind}",
        highlight=False,
    )
    for line in (*model.notes, *data.told(folder)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _warn(warnings: Sequence[str], console: Console) -> None:
    for text in warnings:
        console.print(f"Warning: {text}", style="yellow", highlight=False, markup=False)


def _with_warnings(circuit: Circuit, warnings: list[str]) -> Circuit:
    """The circuit with more sentences that are to be read beside its figures."""
    all_of_them = [*circuit.metadata.get("warnings", []), *warnings]
    return dataclasses.replace(circuit, metadata={**circuit.metadata, "warnings": all_of_them})


def _find(
    config: RunConfig,
    model: Model,
    data: TaskData,
    folder: Path,
    stop: Stop,
    console: Console,
) -> Circuit:
    """Searches with a bar; everything that the method says goes to metrics.jsonl, too."""
    steps = getattr(config.config, "steps", None)
    with (
        TrainingProgress(steps, console) as progress,
        contextlib.closing(RecordLog(folder / "metrics.jsonl")) as log,
        contextlib.closing(
            States(
                folder / STATES,
                every=config.save_every,
                stop=stop,
                log=log,
                say=lambda text: progress({"text": text}),
            )
        ) as states,
    ):

        def on_record(record: Record) -> None:
            if not record.get("passing"):
                log(record)
            progress(record)

        key = jax.random.key(config.seed)
        return discover(key, model, data, config.config, on_record=on_record, saves=states)


def _measure_and_save(
    config: RunConfig, model: Model, circuit: Circuit, test: Batch, folder: Path, console: Console
) -> dict[str, Any]:
    """Results of a circuit, which it leaves in the run's folder and prints."""
    if note := circuit.metadata.get("note"):
        console.print(note, highlight=False)
    figures = evaluate_with_bar(model, circuit, test, console)
    sizes = circuit_sizes(model.config, circuit.masks)
    warned = check_circuit(sizes, level := level_of(circuit.masks))
    circuit = _with_warnings(circuit, warned)
    results = run_folder.results_of(circuit, config.seed, sizes, figures)
    some = test.take(slice(config.control_prompts))
    results["controls"] = controls_of(model, circuit, some, config.seed)
    if RANKING in circuit.metadata:
        results["curve"] = curve_of(model, circuit, circuit, some)
    more = {"test_prompts": config.test_prompts, "seed": config.seed, "figures": figures}
    metadata = {**circuit.metadata, **more}
    nodes = level.nodes(model.config, circuit.masks)
    kept = dataclasses.replace(circuit, metadata=metadata)
    shown = Shown(folder.resolve().name, kept, results, results.get("curve", ()))
    write_page(folder / PAGE, content_of(shown, model.config))
    run_folder.write(folder, kept, nodes, results)
    _forget_states(folder)
    for table in run_folder.tables_of(results, nodes):
        console.print(table.rich())
    _warn(warned, console)
    console.print(
        f"Saved to {folder}: open {folder / PAGE}; python -m experiments.show --circuit "
        f"{shlex.quote(str(folder))} adds what each node does",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return results
