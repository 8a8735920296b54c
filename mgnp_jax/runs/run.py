"""The main job: find one circuit, measure it, save it with tables and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import gate_count
from mgnp_jax.methods.discover import discover
from mgnp_jax.methods.protocol import Interrupted
from mgnp_jax.metrics.sanity import check_counts, check_task
from mgnp_jax.models.hub import Model
from mgnp_jax.models.mesh import mesh_of
from mgnp_jax.passes.settings import execution_of
from mgnp_jax.report import run_folder
from mgnp_jax.report.progress import TrainingProgress
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
from mgnp_jax.runs.following import follow, over_all_devices, parting, seen_by_all
from mgnp_jax.runs.loading import Loaded, load
from mgnp_jax.runs.processes import joined
from mgnp_jax.runs.record_log import RecordLog
from mgnp_jax.runs.saving import STATES, forget_states, measure_and_save, warn, with_warnings
from mgnp_jax.runs.shared import FirstStates, SharedStop
from mgnp_jax.runs.states import States
from mgnp_jax.runs.stopping import Stop, Stopped
from mgnp_jax.tasks import check_source
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import MgnpError, Record


def run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Runs the main job, or goes on with it.

    Args:
      config: what to do.
      console: where to report.

    Returns:
      The results, as in results.json; of several processes, in the first, and nothing in others.

    Raises:
      Stopped: if a signal ended it, with what it can be gone on from put aside.
      MgnpError: for a mistake of the user's, or a folder that cannot be written to.
    """
    processes = joined()
    if processes is not None:
        config = over_all_devices(config)
    check_source(config.source)
    execution = execution_of(config.config)
    mesh_of(execution.devices, execution.shard)
    if processes is not None and not processes.first:
        follow(config, processes)
        return {}
    folder, loaded = _folder(config, console)
    place = ("--out", str(folder)) if config.out is None else ()
    again = () if config.resume else (*place, "--resume")
    shared = None if processes is None else SharedStop(processes)
    with at_work(folder, again, shared) as stop:
        if not config.resume:
            check_free(folder)
        results = finished(folder, config) if config.resume else None
        if processes is not None:
            seen_by_all(processes, folder, done=results is not None)
        if results is not None:
            forget_states(folder)
            console.print(f"{folder} is done already; its figures are in {folder / RESULTS}")
            return results
        with parting(stop):
            return _run(config, loaded or load(config), folder, stop, console)


def _folder(config: RunConfig, console: Console) -> tuple[Path, Loaded | None]:
    """The folder to work in, and what was loaded on the way."""
    source = Path(config.source).stem if config.data else config.source
    name = f"{source}-{Path(config.model).name}{named_after(config.method)}-seed{config.seed}"
    if config.resume:
        folder = config.out or last_default(name)
        if not begun(folder):
            raise MgnpError(
                f"there is nothing to go on with in {folder}: no run was begun there; leave "
                "--resume away to begin one, or pass the --out of another"
            )
        return folder, None
    if config.out is not None:
        if not begun(config.out):
            check_free(config.out)
        return config.out, None
    # First, so that a mistake leaves no folder behind.
    loaded = load(config)
    with contextlib.suppress(MgnpError):
        if undone(last := last_default(name)):
            console.print(f"{last} holds a run that is not done (--resume goes on with it)")
    return new_default(name), loaded


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
        forget_states(config.out)
        return results
    try:
        return run(dataclasses.replace(config, resume=begun(config.out)), console)
    except Stopped as stopped:
        stopped.again = ()
        raise


def _run(
    config: RunConfig, loaded: Loaded, folder: Path, stop: Stop, console: Console
) -> dict[str, Any]:
    """Searches, measures and saves, in a folder that is this process's alone."""
    model, data, test = loaded
    if not config.resume:
        write_whole(folder / SETTINGS, settings_text(config))
    _say_prompts(config, model, data, folder, console)
    counts = dataclasses.replace(data, test=test).counts()
    warned = [*check_counts(counts), *check_task(model, data.validation)]
    warn(warned, console)
    try:
        circuit = _find(config, model, data, folder, stop, console)
    except Interrupted as stopped:
        found = with_warnings(stopped.circuit, warned)
        kept = {**found.metadata, "test_prompts": config.test_prompts}
        run_folder.save_circuit(folder, dataclasses.replace(found, metadata=kept))
        told = "the best circuit so far, not measured, is in circuit/"
        stop.told = ", ".join(filter(None, (stop.told, told)))
        raise
    found = with_warnings(circuit, warned)
    return measure_and_save(config, found, loaded, folder, console)


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
            _states(
                folder / STATES,
                stop,
                every=config.save_every,
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


def _states(folder: Path, stop: Stop, **more: Any) -> States:
    if isinstance(stop, SharedStop):
        return FirstStates(folder, stop, **more)
    return States(folder, stop=stop, **more)
