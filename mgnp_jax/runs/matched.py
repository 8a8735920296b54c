"""A method's circuits at another circuit's sizes and along its own ranking, all on one bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from mgnp_jax.files import read_object, write_whole
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.curves import KEEPS, areas
from mgnp_jax.metrics.evaluate import evaluate_all
from mgnp_jax.models.hub import Model
from mgnp_jax.report.run_folder import save_circuit
from mgnp_jax.runs.beside import OWN, at_sizes_of, curve_of, emptied, ranks_all, sized
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.folder import MEND, RESULTS, results_in
from mgnp_jax.runs.loading import load
from mgnp_jax.types import Batch, checksum, plain_json
from mgnp_jax.version import __version__


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
      For each method `rows`, one a circuit, as in comparison.json, `curve`, one a size, and
      `prompts`: how many there were to measure circuits on, and curves.
    """
    folders = [Path(str(run.out)) for run in bench.runs]
    circuits = [load_circuit(folder) for folder in folders]
    known = [_identity(bench, *each, circuits[0]) for each in zip(bench.runs, circuits)]
    files = [bench.figures / f"{folder.name}.json" for folder in folders]
    found = [saved_of(*each) for each in zip(files, known)]
    found = [figures if figures and _all_there(bench, figures) else None for figures in found]
    missing = [i for i, each in enumerate(found) if each is None]
    if missing:
        model, _, test = load(bench.runs[0])
        bench.figures.mkdir(exist_ok=True)
        shown = track(missing, "Measuring", console=console, disable=not console.is_terminal)
        for i in shown:
            each = _measured(bench, model, test, bench.runs[i], circuits[i], circuits[0])
            found[i] = figures = plain_json(each)
            text = json.dumps({"of": known[i], **figures}, indent=1, allow_nan=False)
            write_whole(files[i], text + "\n")
    return [each for each in found if each is not None]


def _cost(run: RunConfig) -> dict[str, Any]:
    """Seconds and peak of a search, with those of the one whose circuit it worked within."""
    names = ("seconds", "peak_mb")
    training = read_object(Path(str(run.out)) / RESULTS, MEND)["training"]
    cost = {name: training[name] for name in names}
    within = getattr(run.config, "within", None)
    if within is None:
        return cost | {"after": False}
    before = (results_in(within) or {}).get("training")
    if before is None:
        # The folder of a circuit alone says nothing of its search.
        return dict.fromkeys(names) | {"after": True}
    return {
        "seconds": cost["seconds"] + before["seconds"],
        "peak_mb": max(cost["peak_mb"], before["peak_mb"]),
        "after": True,
    }


def _all_there(bench: Bench, figures: Mapping[str, Any]) -> bool:
    """Whether the circuits of equal size, which may have been deleted, can be loaded."""
    places = (_place(bench, row) for row in figures["rows"] if row["matched"] != OWN)
    return all((place / "circuit").is_dir() for place in places)


def _place(bench: Bench, row: Mapping[str, Any]) -> Path:
    return bench.matched / f"{row['method']}-seed{row['seed']}-{row['matched']}"


def _identity(bench: Bench, run: RunConfig, circuit: Circuit, reference: Circuit) -> dict[str, Any]:
    """What decides the figures of a method."""
    ranked = {"masks": circuit.masks, "scores": circuit.scores or {}}
    facts = ("weights_checksum", "data_checksum")
    return {
        "version": __version__,
        "circuit": checksum(ranked),
        "reference": checksum(reference.masks),
        "test_prompts": bench.runs[0].test_prompts,
        "curve_prompts": bench.curve_prompts,
        "cost": plain_json(_cost(run)),
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


def _measured(
    bench: Bench,
    model: Model,
    test: Batch,
    run: RunConfig,
    circuit: Circuit,
    reference: Circuit,
) -> dict[str, Any]:
    """Rows and curve of one method."""
    said = {"method": run.method, "seed": run.seed, **_cost(run)}
    whole = ranks_all(model.config, circuit)
    others: dict[str, Circuit] = {}
    if whole and run is not bench.runs[0]:
        others = at_sizes_of(model, circuit, reference)
    level = level_of(circuit.masks)
    every = {"empty": emptied(model.config, circuit), OWN: circuit, **others}
    figures = evaluate_all(model, every, test)
    found = []
    for name, each in every.items():
        if name != "empty":
            size = sized(model, each, reference, figures[name], figures["empty"])
            found.append({**said, "matched": name, **size})
    for matched, each in others.items():
        folder = _place(bench, said | {"matched": matched})
        folder.mkdir(parents=True, exist_ok=True)
        save_circuit(folder, each)
    curve, some = [], test.of_pairs(slice(bench.curve_prompts))
    if circuit.scores is not None:
        curve = curve_of(model, circuit, reference, some)
    area = dict.fromkeys(("cmd", "cpr", "accuracy_area"))
    if whole:
        values = areas(KEEPS, *([row[n] for row in curve] for n in ("faithfulness", "accuracy")))
        area = dict(zip(area, values))
    ranks = {"ranks": circuit.scores is not None, "ranks_all": whole, "level": level.name}
    return {
        "rows": [row | area | ranks for row in found],
        "curve": [{**said, **row} for row in curve],
        "prompts": {"test": test.pairs, "curve": some.pairs},
    }
