"""Circuits to and from the files of EAP-IG and MIB: what is asked for, and doing it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from mgnp_jax.checkpoint import writing
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.edge_graph import nodes_within
from mgnp_jax.masks.edges import edge_count
from mgnp_jax.masks.granularities import TABLE
from mgnp_jax.masks.levels import level_of
from mgnp_jax.masks.mib.files import export_mib, import_mib
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import load_model
from mgnp_jax.report.mib_submission import export_mib_submission
from mgnp_jax.runs.config import check_least
from mgnp_jax.tasks import check_source
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Writes a saved circuit as EAP-IG and MIB read it, or saves one that they wrote."""

    circuit: Path | None = None
    """A run's folder, or the circuit/ in it, to be written as --to-mib or --submission says."""
    to_mib: Path | None = None
    """New file for that circuit: .json, or .pt where PyTorch is installed."""
    submission: Path | None = None
    """New folder for nine circuits of that circuit's ranking, as MIB's leaderboard takes them."""
    from_mib: Path | None = None
    """A file that EAP-IG or MIB wrote, .json or .pt, to be saved in --out."""
    out: Path | None = None
    """New or empty folder for the circuit of --from-mib."""
    model: str | None = None
    """The model that the circuit is of; with --circuit by default the one it was found on."""
    task: str | None = None
    """Built-in task that the circuit of --from-mib is of, which no file says; it is measured on it
    unless experiments.evaluate is told otherwise."""
    seed: int | None = None
    """Of the prompts of --task; by default 0."""
    keep: float | None = None
    """Share of the edges to keep by the scores of --from-mib; by default what is in its circuit."""
    absolute: bool = False
    """Rank edges of --from-mib by the size of their scores; by default the negative come last."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        if (self.circuit is None) == (self.from_mib is None):
            raise MgnpError("pass one of --circuit DIR and --from-mib FILE")
        given = {field.name for field in dataclasses.fields(self) if getattr(self, field.name)}
        there = {"from_mib", "out", "task", "seed", "keep", "absolute"}
        if wrong := given & (there if self.circuit else {"to_mib", "submission"}):
            with_ = "--from-mib" if self.circuit else "--circuit"
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong))
            raise MgnpError(f"{flags} goes with {with_} alone")
        if self.circuit and not given & {"to_mib", "submission"}:
            raise MgnpError("pass --to-mib FILE or --submission DIR, or both, with --circuit")
        if self.from_mib and not given >= {"out", "model"}:
            raise MgnpError("pass --model NAME and --out DIR with --from-mib")
        if self.seed is not None and self.task is None:
            raise MgnpError("--seed goes with --task alone")
        check_least(self, seed=0)


def convert(config: ConvertConfig, console: Console) -> None:
    """Converts the circuit and says what there is.

    Args:
      config: what to convert.
      console: where to report.

    Raises:
      MgnpError: for a circuit or file that cannot be used, or what cannot be written.
    """
    for line in _written(config) if config.circuit else _saved(config):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _written(config: ConvertConfig) -> Iterator[str]:
    """Writes files; a line on each."""
    assert config.circuit is not None
    circuit = load_circuit(config.circuit)
    if not (name := config.model or circuit.metadata.get("model")):
        raise MgnpError(f"{config.circuit} does not say of which model it is; pass --model")
    model_config = load_model(name).config
    if config.to_mib is not None:
        export_mib(circuit, model_config, config.to_mib)
        edges = edge_count(level_of(circuit.masks).edges(model_config, circuit.masks))
        yield f"{config.to_mib}: {edges:,} edges"
    if config.submission is not None:
        counts = export_mib_submission(circuit, model_config, config.submission)
        told = ", ".join(f"{count:,}" for count in counts.values())
        yield f"{config.submission}: {len(counts)} circuits of {told} edges"
    yield from _unsaid(circuit, model_config)


def _unsaid(circuit: Circuit, model_config: ModelConfig) -> Iterator[str]:
    """What a circuit has and its file has not."""
    level = level_of(circuit.masks)
    own = level.nodes(model_config, circuit.masks)
    whole = nodes_within(model_config, level.edges(model_config, circuit.masks))
    lost = sum(int((np.asarray(whole[n]) & ~np.asarray(own[n], bool)).sum()) for n in TABLE)
    if lost:
        yield (
            f"It leaves out {lost:,} neurons of the nodes that it keeps, which edges cannot say: "
            "they are in the file, which is another circuit so far"
        )
    if circuit.ablation_values is not None:
        yield "It gives constants to pruned nodes; who reads the file has values of its own"


def _saved(config: ConvertConfig) -> Iterator[str]:
    """Saves what a file says; what is to be known about it, then a line on it."""
    assert config.from_mib is not None and config.out is not None and config.model is not None
    if config.task is not None:
        check_source(config.task)
    model = load_model(config.model)
    circuit = import_mib(config.from_mib, model.config, absolute=config.absolute)
    about: dict[str, Any] = {"model": model.name, "task": config.task}
    about["origin"] = config.task and {"source": config.task, "seed": config.seed or 0}
    about["warnings"] = circuit.metadata["warnings"]
    circuit = circuit if config.keep is None else circuit.at(keep=config.keep)
    if not (edges := edge_count(circuit.masks)):
        raise MgnpError(
            f"no edge of {config.from_mib} is in its circuit; pass a larger --keep, for those of "
            "the highest scores"
        )
    circuit = dataclasses.replace(circuit, metadata=circuit.metadata | about)
    with contextlib.suppress(OSError):
        config.out.parent.mkdir(parents=True, exist_ok=True)
    with writing(config.out, jax.tree.leaves((circuit.masks, circuit.scores))):
        circuit.save(config.out)
    yield from about["warnings"]
    ranks = "with" if circuit.scores is not None else "without"
    yield f"Saved to {config.out}: {edges:,} edges, {ranks} a ranking"
