"""A circuit measured on the test split, with a bar, and beside others that should fail."""

from __future__ import annotations

import jax
from rich.console import Console
from rich.progress import Progress

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.evaluate import evaluate
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.runs.beside import emptied
from mgnp_jax.types import Batch, Masks, Record


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
    model_config: ModelConfig, circuit: Circuit, seed: int
) -> dict[str, Circuit | Masks]:
    """The circuit beside others that should fail.

    Args:
      model_config: the model's shape.
      circuit: the circuit.
      seed: of the random one.

    Returns:
      The circuit, a random one of its size, what it leaves out, and nothing kept.
    """
    masks, level = circuit.masks, level_of(circuit.masks)
    return {
        "circuit": circuit,
        "random": level.random(jax.random.key(seed), model_config, masks),
        "complement": level.complement(model_config, masks),
        "empty": emptied(model_config, circuit),
    }
