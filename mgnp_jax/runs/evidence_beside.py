"""The evidence of a saved circuit: read from beside it, or gathered and left there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.evidence.evidence import TEXT_FILE, Evidence, load_evidence
from mgnp_jax.evidence.explain import explain
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edge_graph import edge_names
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.models.hub import Model
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.runs.own_prompts import prompts_for
from mgnp_jax.types import MgnpError

FOLDER = "evidence"
"""Where in a run's folder it is left."""


def evidence_beside(
    folder: Path, circuit: Circuit, model: Model, console: Console
) -> Evidence | None:
    """What was gathered for a circuit; None if nothing was.

    Args:
      folder: of the circuit.
      circuit: the circuit, which may have been replaced since.
      model: that it is shown with.
      console: where to say that what is there is of another circuit or model, and not shown.

    Raises:
      MgnpError: if what is there is not what `Evidence.save` writes.
    """
    for place in (folder, folder / FOLDER):
        if (place / TEXT_FILE).is_file():
            found = load_evidence(place)
            try:
                why = of_another(found, circuit, model)
            # Whoever wrote it, its parts may be anything.
            except (AttributeError, TypeError, ValueError):
                raise MgnpError(
                    f"{place / TEXT_FILE} has not the form that mg.explain gives evidence; remove "
                    "it, or make it again with mg.explain(model, circuit, data.test).save(folder)"
                ) from None
            if not why:
                return found
            told = f"The evidence in {place} is not shown: it is of another {why}"
            console.print(told, style="yellow", markup=False, soft_wrap=True)
    return None


def of_another(evidence: Evidence, circuit: Circuit, model: Model) -> str:
    """What evidence is of, if not of a circuit on a model; empty if it is.

    Args:
      evidence: as it was read.
      circuit: of nodes or edges.
      model: that it is on.
    """
    if evidence.model != model.name:
        return f"model, {evidence.model}, and this is {model.name}"
    level = level_of(circuit.masks)
    masks = level.consistent(circuit.masks)
    kept = level.nodes(model.config, masks)
    # Of circuits of edges, effects of neurons are not defined.
    for name in GRANULARITIES:
        if level is EDGE and name in NEURONS:
            continue
        effects = evidence.removal.get(name, {}).get("score", [])
        if not np.array_equal(~np.isnan(np.asarray(effects, float)), np.asarray(kept[name], bool)):
            return f"circuit, with other {name}"
    if level is EDGE:
        there = {f"{writer}->{reader}" for writer, reader, _ in evidence.edges}
        if not there <= set(edge_names(model.config, masks)):
            return "circuit, with other edges"
    return ""


def gathered(
    folder: Path, circuit: Circuit, model: Model, config: ExplainConfig, console: Console
) -> Evidence | None:
    """Gathers evidence on the test prompts of a circuit's run, and leaves it in the folder.

    Args:
      folder: of the circuit.
      circuit: the circuit; what it was found on is read again.
      model: that it is of.
      config: how much to gather.
      console: where to draw a bar, and to say why there is none.

    Returns:
      The evidence; None where the prompts cannot be read again, or what single nodes do is not
      defined for the model.
    """
    try:
        data, _ = prompts_for(circuit.metadata, model, None)
        with TrainingProgress(None, console) as progress:
            found = explain(model, circuit, data.test, config, on_record=progress)
    except MgnpError as error:
        console.print(
            f"No evidence for single nodes: {error}", style="yellow", markup=False, soft_wrap=True
        )
        return None
    found.save(folder / FOLDER)
    return found
