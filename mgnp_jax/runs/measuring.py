"""A circuit measured on the test split, with a bar, and beside others that should fail."""

from __future__ import annotations

from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.evaluate import evaluate, evaluate_all
from mgnp_jax.models.hub import Model
from mgnp_jax.types import Batch, Record


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
    masks, level = circuit.masks, level_of(circuit.masks)
    others = {
        "random": level.random(jax.random.key(seed), model.config, masks),
        "complement": level.complement(model.config, masks),
        "empty": level.full(model.config, 0.0, masks),
    }
    return evaluate_all(model, {"circuit": circuit, **others}, some)
