"""Is the circuit real? One row for each thing that a real one does, and an illusion does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.controls import jaccard
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_HIDDEN
from mgnp_jax.masks.levels import EDGE, NODE, level_of
from mgnp_jax.metrics.evaluate import evaluate
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.hub import Model
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.control_searches import SEARCHES
from mgnp_jax.runs.loading import load
from mgnp_jax.runs.matched import saved_of
from mgnp_jax.tasks import TASKS
from mgnp_jax.tasks.altered import freshly_corrupted
from mgnp_jax.tasks.task import TaskData, build
from mgnp_jax.types import Batch, checksum, plain_json
from mgnp_jax.version import __version__

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """What the circuit of a run is put beside.

    Attributes:
      run: whose circuit it is.
      seeds: folders of the same method's runs of other seeds.
      tasks: folders of its runs on other tasks, by task.
      searches: folders of the repeated searches, by name.
      missing: other tasks of which there is no circuit, and why.
      file: for what is measured.
    """

    run: RunConfig
    seeds: tuple[Path, ...]
    tasks: Mapping[str, Path]
    searches: Mapping[str, Path]
    missing: Mapping[str, str]
    file: Path


def controls_measured(controls: Controls, console: Console) -> list[Row]:
    """Measures what is not measured yet.

    Args:
      controls: what to measure.
      console: where to report.

    Returns:
      Rows: `control` says of what, `should` what it looks like if the circuit is real, then figures
      and overlaps with the circuit, None where there is none. One that cannot be measured says so.
    """
    folders = {"": Path(str(controls.run.out)), **controls.tasks, **controls.searches}
    folders |= {str(folder): folder for folder in controls.seeds}
    circuits = {name: load_circuit(folder) for name, folder in folders.items()}
    known = {
        "version": __version__,
        "test_prompts": controls.run.test_prompts,
        "seed": controls.run.seed,
        "missing": dict(controls.missing),
        "circuits": {name: checksum(each.masks) for name, each in circuits.items()},
        "data": circuits[""].metadata.get("data_checksum"),
    }
    if (saved := saved_of(controls.file, known)) is not None:
        return saved["rows"]
    console.print("Measuring controls", highlight=False)
    model, data, test = load(controls.run)
    rows = _of_itself(model, circuits[""], test, controls.run.seed)
    rows += _freshly_corrupted(controls, model, circuits[""])
    rows += [
        _row(model, circuits[name], test, f"circuit of {name}", "fails, as nothing kept")
        for name in controls.tasks
    ]
    rows += [_left_out(f"circuit of {name}", why) for name, why in controls.missing.items()]
    rows += _searched(controls, model, data, circuits)
    rows += _overlaps(controls, model, circuits)
    rows = plain_json(rows)
    text = json.dumps({"of": known, "rows": rows}, indent=1, allow_nan=False)
    write_whole(controls.file, text + "\n")
    return rows


def _row(model: Model, circuit: Circuit, batch: Batch, control: str, should: str) -> Row:
    # Prompts of another task may begin otherwise; here it is measured on these.
    found = evaluate(model, circuit, dataclasses.replace(batch, prefix=None))
    wanted = ("kl", "score", "accuracy", "base_score", "base_accuracy")
    sizes = circuit_sizes(model.config, circuit.masks)
    return {
        "control": control,
        "should": should,
        **{name: found[name] for name in wanted},
        "heads": sizes["sizes"][ATTENTION_HEADS]["active"],
        "prunable_kept": sizes["parameters"]["prunable_kept"],
    }


def _left_out(control: str, why: str) -> Row:
    return {"control": control, "should": f"not measured: {why}"}


def _with(circuit: Circuit, masks: Any) -> Circuit:
    return dataclasses.replace(circuit, masks=masks)


def _of_itself(model: Model, circuit: Circuit, test: Batch, seed: int) -> list[Row]:
    """The circuit, what is like it in size alone, what it leaves out, and it as another level."""
    c, level, masks = model.config, level_of(circuit.masks), circuit.masks
    random = level.random(jax.random.key(seed), c, masks)
    every = [
        ("the circuit", masks, "as the model: KL near 0"),
        ("random, of its size", random, "fails, as nothing kept"),
        ("everything but it", level.complement(c, masks), "fails, as nothing kept"),
        ("nothing kept", level.full(c, 0.0, masks), "fails"),
    ]
    if level is NODE:
        between = level.edges(c, masks)
        told = "whole heads and MLPs of it"
        every.append((told, EDGE.nodes(c, between), "about as the circuit, or nearer the model"))
    rows = [_row(model, _with(circuit, m), test, name, should) for name, m, should in every]
    if level is NODE:
        rows.append(_as_edges(model, circuit, test))
    return rows


def _as_edges(model: Model, circuit: Circuit, test: Batch) -> Row:
    told = "the edges between these, as edges"
    if circuit.ablation_values is not None:
        return _left_out(told, "what is pruned has constants, which edges cannot be given")
    between = _with(circuit, level_of(circuit.masks).edges(model.config, circuit.masks))
    return _row(model, between, test, told, "equal to the row above: one function, run in two ways")


def _freshly_corrupted(controls: Controls, model: Model, circuit: Circuit) -> list[Row]:
    """Circuit and complement, pruned nodes given values of corrupted prompts of another draw."""
    task = TASKS.get(controls.run.source)
    fresh = task and freshly_corrupted(task, model.tokenizer)
    if not fresh:
        told = "the circuit, other corrupted prompts"
        return [_left_out(told, f"{controls.run.source} knows no others for its clean prompts")]
    prefix = controls.run.prefix
    data = build(fresh, model.tokenizer, controls.run.seed, 0, prefix=prefix, limits=model.config)
    test = data.test.of_pairs(slice(controls.run.test_prompts))
    left = level_of(circuit.masks).complement(model.config, circuit.masks)
    return [
        _row(model, circuit, test, "the circuit, other corrupted prompts", "as the circuit"),
        _row(
            model,
            _with(circuit, left),
            test,
            "everything but it, other corrupted prompts",
            "fails, as nothing kept",
        ),
    ]


SHOULD = {
    "shuffled-answers": "accuracy at chance, as the model's beside it. A search that matches the "
    "model (KL, its score) asks for no answers: it finds the task's circuit again, KL near 0",
    "shuffled-weights": "accuracy at chance, as that of this model, which has learned nothing; KL "
    "may be near 0, where the search matches that model",
    "half-0": "as the circuit",
    "half-1": "as the circuit",
}
"""What the repeated searches find if circuits are real; KL tells less there than accuracy."""


def _searched(
    controls: Controls, model: Model, data: TaskData, circuits: Mapping[str, Circuit]
) -> list[Row]:
    """What the same search finds elsewhere, measured there."""
    rows = []
    for name in controls.searches:
        own, prompts = SEARCHES[name](model, data, controls.run.seed)
        test = prompts.test.of_pairs(slice(controls.run.test_prompts))
        told = f"search on {name.replace('-', ' ')}"
        rows.append(_row(own, circuits[name], test, told, SHOULD[name]))
    return rows


def _overlaps(controls: Controls, model: Model, circuits: Mapping[str, Circuit]) -> list[Row]:
    """How much of its nodes the circuit shares with those of other seeds and halves."""

    def nodes(masks: Any) -> Any:
        return level_of(masks).nodes(model.config, masks)

    def row(control: str, should: str, pairs: list[tuple[Any, Any]]) -> Row:
        each = [jaccard(nodes(a), nodes(b)) for a, b in pairs]
        mean = {name: np.mean([found[name] for found in each]) for name in each[0]}
        overlap = {"overlap_heads": mean[ATTENTION_HEADS], "overlap_hidden": mean[MLP_HIDDEN]}
        return {"control": control, "should": should, **overlap}

    ours = circuits[""].masks
    keys = jax.random.split(jax.random.key(controls.run.seed), 8)
    random = level_of(ours).random
    drawn = [(ours, random(key, model.config, ours)) for key in keys]
    rows = [row("overlap with random ones of its size", "least of these", drawn)]
    above = "far above that of random ones"
    if controls.seeds:
        others = [(ours, circuits[str(folder)].masks) for folder in controls.seeds]
        rows.append(row("overlap with other seeds'", above, others))
    halves = [(circuits[a].masks, circuits[b].masks) for a, b in (("half-0", "half-1"),)]
    rows.append(row("overlap of the halves'", above, halves))
    other = [(ours, circuits[name].masks) for name in controls.tasks]
    return [
        *rows,
        *([row("overlap with other tasks'", "less than other seeds'", other)] if other else []),
    ]
