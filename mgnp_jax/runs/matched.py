"""A method's circuits at another circuit's sizes and along its own ranking, all on one bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from mgnp_jax.files import read_object, write_whole
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.edges import edge_count
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.curves import KEEPS, areas, faithfulness
from mgnp_jax.metrics.evaluate import evaluate_all
from mgnp_jax.metrics.sizes import circuit_sizes, prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.report.run_folder import save_circuit
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.folder import MEND, RESULTS
from mgnp_jax.runs.loading import load
from mgnp_jax.types import Batch, Masks, checksum, plain_json
from mgnp_jax.version import __version__

OWN, EDGES, PARAMETERS = "own", "edges", "parameters"
"""What a circuit has as many of as the reference's; or the size at which it was found."""

SIZES: dict[str, Callable[[ModelConfig, Masks], float]] = {
    EDGES: lambda c, masks: edge_count(level_of(masks).edges(c, masks)),
    PARAMETERS: lambda c, masks: prunable_share(c, level_of(masks).nodes(c, masks)),
}
"""How large a circuit of either level is: edges between what is kept, and the share of the prunable
parameters that is within the nodes which are kept or gone through."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What all methods are measured on at one seed.

    Attributes:
      runs: of every method, all done; the reference first.
      matched: folder for the circuits at the reference's sizes.
      figures: folder for what is measured, a file a method.
      curve_prompts: test prompts that curves are measured on.
    """

    runs: tuple[RunConfig, ...]
    matched: Path
    figures: Path
    curve_prompts: int


def measured(bench: Bench, console: Console) -> list[dict[str, Any]]:
    """Measures what is not measured yet.

    Args:
      bench: the methods and what they are measured on.
      console: where to report.

    Returns:
      For each method `rows`, one a circuit, as in comparison.json, and `curve`, one a size.
    """
    folders = [Path(str(run.out)) for run in bench.runs]
    circuits = [load_circuit(folder) for folder in folders]
    known = [_identity(bench, circuit, circuits[0]) for circuit in circuits]
    files = [bench.figures / f"{folder.name}.json" for folder in folders]
    found = [saved_of(*each) for each in zip(files, known)]
    missing = [i for i, each in enumerate(found) if each is None]
    if missing:
        model, _, test = load(bench.runs[0])
        bench.figures.mkdir(exist_ok=True)
        shown = track(missing, "Measuring", console=console, disable=not console.is_terminal)
        for i in shown:
            results = read_object(folders[i] / RESULTS, MEND)
            each = _measured(bench, model, test, circuits[i], circuits[0], results, i == 0)
            found[i] = figures = plain_json(each)
            text = json.dumps({"of": known[i], **figures}, indent=1, allow_nan=False)
            write_whole(files[i], text + "\n")
    return [each for each in found if each is not None]


def _identity(bench: Bench, circuit: Circuit, reference: Circuit) -> dict[str, Any]:
    """What decides the figures of a method."""
    ranked = {"masks": circuit.masks, "scores": circuit.scores or {}}
    facts = ("weights_checksum", "data_checksum")
    return {
        "version": __version__,
        "circuit": checksum(ranked),
        "reference": checksum(reference.masks),
        "test_prompts": bench.runs[0].test_prompts,
        "curve_prompts": bench.curve_prompts,
        **{name: circuit.metadata.get(name) for name in facts},
    }


def saved_of(file: Path, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures that were kept, if they are of the same.

    Args:
      file: that they were written to.
      known: what decides them, which they have as `of`.
    """
    if not file.exists():
        return None
    saved = read_object(file, "delete it to measure again")
    return saved if saved.pop("of", None) == known else None


def at_sizes_of(model: Model, circuit: Circuit, reference: Circuit) -> dict[str, Circuit]:
    """The largest circuits of a ranking that are no larger than another circuit.

    Args:
      model: of both.
      circuit: with scores.
      reference: of either level.

    Returns:
      One for each of `SIZES`; of nodes, the smallest there is where none is as small.
    """
    found = {}
    for name, size in SIZES.items():
        most = size(model.config, reference.masks)
        found[name] = circuit.within(
            lambda masks, size=size, most=most: size(model.config, masks) <= most, {name: most}
        )
    return found


def _measured(
    bench: Bench,
    model: Model,
    test: Batch,
    circuit: Circuit,
    reference: Circuit,
    results: Mapping[str, Any],
    is_reference: bool,
) -> dict[str, Any]:
    """Rows and curve of one method."""
    others: dict[str, Circuit] = {}
    if circuit.scores is not None and not is_reference:
        others = at_sizes_of(model, circuit, reference)
    level = level_of(circuit.masks)
    empty = dataclasses.replace(circuit, masks=level.full(model.config, 0.0, circuit.masks))
    every = {"empty": empty, OWN: circuit, **others}
    figures = evaluate_all(model, every, test)
    found = []
    for name, each in every.items():
        if name != "empty":
            size = _sized(model, each, reference, figures[name], figures["empty"])
            found.append({**_said(results), "matched": name, **size})
    name = f"{results['method']}-seed{results['seed']}"
    for matched, each in others.items():
        folder = bench.matched / f"{name}-{matched}"
        folder.mkdir(parents=True, exist_ok=True)
        save_circuit(folder, each)
    curve = []
    if circuit.scores is not None:
        curve = _curve(model, circuit, empty, reference, test.take(slice(bench.curve_prompts)))
    area = dict.fromkeys(("cmd", "cpr", "accuracy_area"))
    if curve:
        values = areas(KEEPS, *([row[n] for row in curve] for n in ("faithfulness", "accuracy")))
        area = dict(zip(area, values))
    ranks = circuit.scores is not None
    return {
        "rows": [row | area | {"ranks": ranks, "level": level.name} for row in found],
        "curve": [{**_said(results), **row} for row in curve],
    }


def _said(results: Mapping[str, Any]) -> dict[str, Any]:
    training = {name: results["training"][name] for name in ("seconds", "peak_mb")}
    return {"method": results["method"], "seed": results["seed"], **training}


def _sized(
    model: Model,
    circuit: Circuit,
    reference: Circuit,
    figures: Mapping[str, Any],
    empty: Mapping[str, Any],
) -> dict[str, Any]:
    """A circuit's sizes and figures, and whether it is no larger than the reference."""
    sizes = circuit_sizes(model.config, circuit.masks)
    nodes = level_of(circuit.masks).nodes(model.config, circuit.masks)
    own, most = (
        {name: size(model.config, masks) for name, size in SIZES.items()}
        for masks in (circuit.masks, reference.masks)
    )
    return {
        "edge_sparsity": sizes["edges"]["sparsity"],
        "prunable_kept": sizes["parameters"]["prunable_kept"],
        **{name: figures[name] for name in ("kl", "score", "accuracy")},
        "heads": sizes["sizes"][ATTENTION_HEADS]["active"],
        "edges": sizes["edges"]["active"],
        "base_score": figures["base_score"],
        "base_accuracy": figures["base_accuracy"],
        "faithfulness": faithfulness(figures["score"], empty["score"], figures["base_score"]),
        "heads_by_layer": np.asarray(nodes[ATTENTION_HEADS]).sum(-1).tolist(),
        "mlps": np.asarray(nodes[MLP_BLOCKS]).astype(int).tolist(),
        "within": {name: own[name] <= most[name] for name in SIZES},
    }


def _curve(
    model: Model, circuit: Circuit, empty: Circuit, reference: Circuit, some: Batch
) -> list[dict[str, Any]]:
    """A ranking's circuits of every size."""
    every = {f"{keep:g}": circuit.at(keep=keep) for keep in KEEPS}
    figures = evaluate_all(model, {"empty": empty, **every}, some)
    wanted = ("edge_sparsity", "prunable_kept", "kl", "score", "accuracy", "faithfulness")
    rows = []
    for keep, (name, each) in zip(KEEPS, every.items()):
        row = _sized(model, each, reference, figures[name], figures["empty"])
        rows.append({"keep": keep, **{n: row[n] for n in wanted}})
    return rows
