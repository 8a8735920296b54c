"""The evidence of a saved circuit: read from beside it, or gathered and left there."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.evidence.evidence import TEXT_FILE, Evidence, load_evidence
from mgnp_jax.evidence.explain import explain
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.models.hub import Model
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.runs.own_prompts import prompts_for
from mgnp_jax.types import MgnpError

FOLDER = "evidence"
"""Where in a run's folder it is left."""


def evidence_beside(folder: Path) -> Evidence | None:
    """What was gathered for a circuit; None if nothing was.

    Args:
      folder: of the circuit.

    Raises:
      MgnpError: if what is there is not what `Evidence.save` writes.
    """
    there = (folder / TEXT_FILE, folder / FOLDER / TEXT_FILE)
    return load_evidence(folder) if any(file.is_file() for file in there) else None


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
