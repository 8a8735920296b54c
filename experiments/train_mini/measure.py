"""Says how well gpt2-mini knows each task, and in which attention layers.

python -m experiments.train_mini.measure
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

import mgnp_jax as mg
from experiments.command import command


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Measures a model on the test prompts of every built-in task."""

    model: str = "gpt2-mini"
    """gpt2-mini, or the folder of one that was trained again."""
    seed: int = 0
    """Of the prompts."""
    test_prompts: int | None = None
    """So many test prompts of each task; None for all."""


def measured(model: mg.Model, task: str, config: MeasureConfig) -> tuple[dict[str, Any], list[Any]]:
    """Figures of the whole model, and with each layer's attention as in the corrupted run.

    Args:
      model: to measure.
      task: of `mg.TASKS`.
      config: which prompts.

    Returns:
      Figures of the whole model, then those without each layer.
    """
    test = mg.load_task(task, model.tokenizer, seed=config.seed).test.spread(config.test_prompts)
    whole = mg.full_masks(model.config, 1.0)
    without = []
    for layer in range(model.config.layers):
        blocks = whole["attention_blocks"].at[layer].set(0.0)
        without.append(mg.evaluate(model, {**whole, "attention_blocks": blocks}, test))
    return mg.evaluate(model, whole, test), without


def report(config: MeasureConfig, console: Console) -> None:
    """Prints a row for each task: accuracy, score, and accuracy and score without each layer.

    Args:
      config: which model and prompts.
      console: where to report.
    """
    model = mg.load_model(config.model)
    layers = [f"without attention {layer}" for layer in range(model.config.layers)]
    table = Table("task", "whole", *layers)
    for task in mg.TASKS:
        whole, without = measured(model, task, config)
        cells = (f"{each['accuracy']:.3f}, {each['score']:.2f}" for each in (whole, *without))
        table.add_row(task, *cells)
    console.print(table)
    console.print("accuracy, score")


if __name__ == "__main__":
    command(MeasureConfig, report)
