"""Pages of saved circuits: one circuit with others beside it, or a list of runs."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.files import read_object
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.levels import check_masks
from mgnp_jax.masks.mib.files import FORMS, import_mib
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.hub import Model, load_model
from mgnp_jax.report.page.content import Shown, content_of
from mgnp_jax.report.page.headline import at
from mgnp_jax.report.page.html import PAGE, write_list, write_page
from mgnp_jax.report.page.runs_list import run_rows
from mgnp_jax.runs.beside import curve_of
from mgnp_jax.runs.config import check_least
from mgnp_jax.runs.evidence_beside import evidence_beside, gathered
from mgnp_jax.runs.folder import RESULTS
from mgnp_jax.runs.own_prompts import prompts_for
from mgnp_jax.types import MgnpError

CURVES = "curves.csv"
"""What a comparison has beside its runs."""

DEEPEST = 3
"""Folders below the one whose runs are listed in which others are looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Makes a page of a saved circuit that a browser opens from the disk, or a list of runs."""

    circuit: Path | None = None
    """A run's folder, the circuit/ in it, or a file of EAP-IG or MIB (which wants --model)."""
    compare: tuple[Path, ...] = ()
    """Others of the same model, to be put beside it."""
    runs: Path | None = None
    """Instead, a folder: its index.html then lists the runs in it."""
    model: str | None = None
    """The model that the circuit is of; by default the one it was found on."""
    out: Path | None = None
    """File for the page; by default index.html in the run's folder, or beside a file its name with
    .html."""
    evidence_prompts: int = 64
    """Gather evidence for every node on the first so many of the circuit's own test prompts, where
    none of that circuit lies beside it, and leave it in evidence/ of the folder; 0 leaves that
    away."""
    curve_prompts: int = 64
    """Measure the KL of a ranking's circuits of ten sizes on the first so many test prompts, where
    no curves.csv beside the folder has them; 0 leaves that away."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        if (self.circuit is None) == (self.runs is None):
            raise MgnpError("pass one of --circuit DIR and --runs DIR")
        if self.runs is not None and (self.compare or self.model):
            raise MgnpError("--compare and --model go with --circuit alone")
        check_least(self, curve_prompts=0, evidence_prompts=0)


def show(config: ShowConfig, console: Console) -> Path:
    """Writes the page and says where it is.

    Args:
      config: what to show.
      console: where to report.

    Returns:
      The page.

    Raises:
      MgnpError: for a circuit that cannot be read or is of another model, or a page that cannot be
        written.
    """
    try:
        file = _listed(config) if config.runs is not None else _shown(config, console)
    except OSError as error:
        raise MgnpError(f"the page cannot be written: {error.strerror or error}") from None
    size = file.stat().st_size / 1e6
    console.print(f"{file} ({size:.1f} MB): open it in a browser", soft_wrap=True)
    return file


def _shown(config: ShowConfig, console: Console) -> Path:
    assert config.circuit is not None
    place = config.circuit
    circuit, model = _read(place, config.model, None)
    shown = _with_figures(place, circuit, model, config, console)
    others = []
    for other in config.compare:
        found, _ = _read(other, config.model, model)
        check_masks(model.config, found.masks, f"the masks of {other}")
        others.append(_with_figures(other, found, model, config, console))
    evidence = evidence_beside(_folder_of(place), circuit, model, console)
    if evidence is None and config.evidence_prompts and not place.is_file():
        some = ExplainConfig(prompts=config.evidence_prompts)
        evidence = gathered(_folder_of(place), circuit, model, some, console)
    known = None if evidence is None else evidence.as_page()
    content = content_of(shown, model.config, evidence=known, others=others)
    file = config.out or (
        place.with_suffix(".html") if place.is_file() else _folder_of(place) / PAGE
    )
    write_page(file, content)
    return file


def _folder_of(place: Path) -> Path:
    return place.parent if place.name == "circuit" else place


def _read(place: Path, name: str | None, model: Model | None) -> tuple[Circuit, Model]:
    """A circuit and its model, which is loaded unless it is at hand."""
    if place.suffix in FORMS and place.is_file():
        if model is None and name is None:
            raise MgnpError(f"{place} does not say of which model it is; pass --model")
        model = model or load_model(str(name))
        return import_mib(place, model.config), model
    circuit = load_circuit(place)
    said = circuit.metadata.get("model")
    if model is None:
        if not (name := name or said):
            raise MgnpError(f"{place} does not say of which model it is; pass --model")
        model = load_model(name)
    elif name is None and said and said != model.name:
        raise MgnpError(
            f"{place} is a circuit of {said}, the page's of {model.name}; leave it away, or pass "
            "--model if both are names of one model"
        )
    check_masks(model.config, circuit.masks, f"the masks of {place}")
    return circuit, model


def _with_figures(
    place: Path, circuit: Circuit, model: Model, config: ShowConfig, console: Console
) -> Shown:
    """A circuit with what was measured of it, and its curve."""
    folder = _folder_of(place)
    file = folder / RESULTS
    results = read_object(file) if file.is_file() else {}
    if results and (why := _not_of(results, circuit, model)):
        told = f"{file} is not shown: it is of another circuit, with other {why}"
        console.print(told, style="yellow", markup=False, soft_wrap=True)
        results = {}
    if results and (said := results.get("model")) and said != model.name:
        told = f"{file} was measured on {said}; evidence and curves are of {model.name}"
        console.print(told, style="yellow", markup=False, soft_wrap=True)
        warned = results.get("warnings")
        results["warnings"] = [*(warned if isinstance(warned, list) else []), told]
    curve = results.get("curve") or curve_beside(folder, circuit.metadata)
    if not curve and circuit.scores is not None and config.curve_prompts and results:
        console.print(f"Measuring circuits of ten sizes of {place}", soft_wrap=True)
        curve = _measured(circuit, model, config.curve_prompts)
    return Shown(folder.name or str(folder.resolve().name), circuit, results, curve)


def _not_of(results: Mapping[str, Any], circuit: Circuit, model: Model) -> str:
    """What results count otherwise than a circuit has it; empty if nothing."""
    own = circuit_sizes(model.config, circuit.masks)
    for name, counts in own["sizes"].items():
        if at(results, "sizes", name, "active") not in (None, counts["active"]):
            return name
    return "edges" if at(results, "edges", "active") not in (None, own["edges"]["active"]) else ""


def _measured(circuit: Circuit, model: Model, prompts: int) -> list[dict[str, Any]]:
    data, _ = prompts_for(circuit.metadata, model, None)
    return curve_of(model, circuit, circuit, data.test.of_pairs(slice(prompts)))


def curve_beside(folder: Path, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A run's rows of the curves.csv of the comparison that it is part of.

    Args:
      folder: of the run.
      metadata: of its circuit; method and seed tell its rows from others.

    Returns:
      The rows, numbers as such; none where there is no such file.

    Raises:
      MgnpError: if the file has other columns, or no numbers in them.
    """
    file = folder.resolve().parent / CURVES
    if not file.is_file():
        return []
    wanted = ("keep", "prunable_kept", "edge_sparsity", "kl", "score", "accuracy")
    rows = []
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row.get("method") != metadata.get("method"):
                continue
            if row.get("seed") != str(metadata.get("seed")):
                continue
            try:
                rows.append({name: float(row[name] or math.nan) for name in wanted})
            except (KeyError, ValueError):
                raise MgnpError(
                    f"{file} has a row without the numbers {', '.join(wanted)}; make the "
                    "comparison again, or move the run's folder elsewhere"
                ) from None
    return rows


def _listed(config: ShowConfig) -> Path:
    assert config.runs is not None
    if not config.runs.is_dir():
        raise MgnpError(f"--runs wants a folder, and there is no folder {config.runs}")
    found = []
    for depth in range(1, DEEPEST + 1):
        for file in config.runs.glob("*/" * depth + RESULTS):
            folder = file.parent
            results = read_object(file)
            if "circuit" in results and (folder / "circuit").is_dir():
                page = PAGE if (folder / PAGE).is_file() else "README.md"
                found.append((folder.relative_to(config.runs).as_posix(), page, results))
    if not found:
        raise MgnpError(f"there is no run in {config.runs}: no folder in it has {RESULTS}")
    file = config.out or config.runs / PAGE
    if config.out is None and (config.runs / CURVES).is_file():
        raise MgnpError(f"{file} is the page of a comparison; pass another --out in that folder")
    if file.resolve().parent != config.runs.resolve():
        raise MgnpError(f"links of the list lead from {config.runs}; pass an --out in it")
    write_list(file, config.runs.resolve().name, run_rows(sorted(found, key=lambda each: each[0])))
    return file
