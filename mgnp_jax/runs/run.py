"""The main job: find one circuit, measure it, save it with tables and pictures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.controls import shuffled
from mgnp_jax.masks.granularities import EMBEDDING, full_masks, gate_count
from mgnp_jax.masks.hierarchy import complement
from mgnp_jax.methods.discover import discover
from mgnp_jax.methods.protocol import Interrupted
from mgnp_jax.metrics.evaluate import check_prompts, evaluate, evaluate_all
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.hub import Model, load_model
from mgnp_jax.passes.sharding import batch_sharding
from mgnp_jax.report import run_folder
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.runs.config import RunConfig, named_after, settings_text
from mgnp_jax.tasks import check_source, load_task
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, Record

LITTLE_PRUNED = 0.98
"""Share of the parameters above which a circuit is called the whole model."""


def run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Runs the main job.

    Args:
      config: what to do.
      console: where to report.

    Returns:
      The results, as in results.json.

    Raises:
      Interrupted: if the user stopped the search; what was found by then is measured and saved.
    """
    check_source(config.source)
    if hasattr(config.config, "execution"):
        batch_sharding(config.config.execution.devices)
    run_folder.check_free(config.out)
    model = load_model(config.model)
    data = load_task(
        config.source,
        model.tokenizer,
        config.seed,
        skip_bad=config.skip_bad,
        extra_corruptions=config.extra_corruptions,
        metric=config.metric,
        prefix=config.prefix,
        limits=model.config,
    )
    test = data.test.take(slice(config.test_prompts))
    check_prompts(model.config, test)
    # Only now, so that a mistake above leaves no folder behind.
    name = f"{data.name}-{Path(config.model).name}{named_after(config.method)}-seed{config.seed}"
    folder = run_folder.new_folder(config.out, name)
    # Whole or not at all: `finished` reads it.
    part = folder / "config.json.part"
    part.write_text(settings_text(config))
    part.rename(folder / "config.json")
    _say_prompts(config, model, data, folder, console)
    try:
        circuit = _find(config, model, data, folder, console)
    except Interrupted as stopped:
        console.print("Stopped; measuring and saving what was found by then", highlight=False)
        _measure_and_save(config, model, stopped.circuit, test, folder, console)
        raise
    return _measure_and_save(config, model, circuit, test, folder, console)


def _say_prompts(
    config: RunConfig, model: Model, data: TaskData, folder: Path, console: Console
) -> None:
    counts = " / ".join(f"{n:,}" for n in data.counts().values())
    console.print(
        f"{data.name} on {config.model}: {counts} training / validation / test prompts, "
        f"{gate_count(model.config):,} nodes, {config.method} on {jax.devices()[0].device_kind}",
        highlight=False,
    )
    for line in data.told(folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _find(
    config: RunConfig, model: Model, data: TaskData, folder: Path, console: Console
) -> Circuit:
    """Searches with a bar; everything that the method says goes to metrics.jsonl, too."""
    steps = getattr(config.config, "steps", None)
    with (folder / "metrics.jsonl").open("w") as log:
        with TrainingProgress(steps, console) as progress:

            def on_record(record: Record) -> None:
                print(json.dumps(record), file=log, flush=True)
                progress(record)

            key = jax.random.key(config.seed)
            return discover(key, model, data, config.config, on_record=on_record)


def evaluate_with_bar(model: Model, circuit: Circuit, test: Batch, console: Console) -> Record:
    """`evaluate` with a progress bar.

    Args:
      model: the model.
      circuit: the circuit.
      test: held-out prompts.
      console: where to draw.

    Returns:
      The metrics.
    """
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Measuring on test prompts", total=len(test))
        return evaluate(
            model, circuit, test, on_progress=lambda prompts: bar.advance(task, prompts)
        )


def controls_of(
    model: Model, circuit: Circuit, some: Batch, seed: int
) -> dict[str, dict[str, Any]]:
    """The circuit beside others that should fail.

    Args:
      model: the model.
      circuit: the circuit.
      some: held-out prompts.
      seed: of the random one.

    Returns:
      Metrics of the circuit, a random one of its size, what it leaves out, and nothing kept.
    """
    others = {
        "random": shuffled(jax.random.key(seed), circuit.masks),
        "complement": complement(circuit.masks),
        "empty": full_masks(model.config, 0.0, embedding=EMBEDDING in circuit.masks),
    }
    return evaluate_all(model, {"circuit": circuit, **others}, some)


def _measure_and_save(
    config: RunConfig, model: Model, circuit: Circuit, test: Batch, folder: Path, console: Console
) -> dict[str, Any]:
    """Results of a circuit, which it leaves in the run's folder and prints."""
    if note := circuit.metadata.get("note"):
        console.print(note, highlight=False)
    figures = evaluate_with_bar(model, circuit, test, console)
    sizes = circuit_sizes(model.config, circuit.masks)
    results = run_folder.results_of(circuit, config.seed, sizes, figures)
    some = test.take(slice(config.control_prompts))
    results["controls"] = controls_of(model, circuit, some, config.seed)
    metadata = {**circuit.metadata, "test_prompts": config.test_prompts, "figures": figures}
    run_folder.write(folder, dataclasses.replace(circuit, metadata=metadata), results)
    for table in run_folder.tables_of(results, circuit):
        console.print(table.rich())
    if results["parameters"]["active"] > LITTLE_PRUNED * results["parameters"]["total"]:
        console.print(
            "Warning: hardly anything is pruned, so this is the model rather than a circuit; "
            "search longer (--steps) or ask for less (--penalty, --keep)",
            style="yellow",
        )
    console.print(f"Saved to {folder} (start with {folder / 'README.md'})", highlight=False)
    return results
