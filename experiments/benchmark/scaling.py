"""How a training step's time and memory grow with tokens and layers, drawn.

Time is of a step on kept values of the corrupted run; memory is of a step that is given the
values of its own batch alone.

python -m experiments.benchmark.scaling --out scaling.png
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import jax
from matplotlib.figure import Figure
from rich.console import Console

import mgnp_jax as mg
from experiments.benchmark.measure import ours
from experiments.benchmark.workload import load, random_prompts
from experiments.command import command
from mgnp_jax.report.tables import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Measures our step at several lengths and depths of one shape."""

    out: Path
    """Picture to write."""
    model: str = "gpt2-small-random"
    """Shape whose layers are cut."""
    layers: tuple[int, ...] = (3, 6, 12)
    """Depths."""
    tokens: tuple[int, ...] = (16, 32, 64)
    """Lengths of the prompts."""
    batch_size: int = 8
    """Prompts a step."""
    repeats: int = 5
    """Steps timed; the median counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement.

    Attributes:
      layers: depth.
      tokens: length of the prompts.
      step_s: median seconds of a step.
      xla_mb: arguments, temporaries and outputs.
    """

    layers: int
    tokens: int
    step_s: float
    xla_mb: float


def scaling(config: ScalingConfig, console: Console) -> list[Point]:
    """Measures every depth at every length, draws them and prints a table.

    Args:
      config: what to measure.
      console: where to report.
    """
    model = load(config.model)
    discover = mg.DiscoverConfig(
        batch_size=config.batch_size, execution=mg.Execution(cache="batch")
    )
    points = []
    for layers in config.layers:
        blocks = jax.tree.map(lambda leaf, n=layers: leaf[:n], model.params["blocks"])
        cut = dataclasses.replace(
            model,
            config=dataclasses.replace(model.config, layers=layers),
            params={**model.params, "blocks": blocks},
        )
        for tokens in config.tokens:
            kept = dataclasses.replace(discover, execution=mg.Execution(cache="dataset"))
            prompts = random_prompts(config.batch_size, tokens)
            step, _, _ = ours(kept, cut, prompts)
            _, _, memory = ours(discover, cut, prompts)
            step()
            seconds = statistics.median(step() for _ in range(config.repeats))
            points.append(Point(layers=layers, tokens=tokens, step_s=seconds, xla_mb=memory))
    draw(points, config.model).savefig(config.out, dpi=150)
    console.print(table(points, config).rich())
    return points


def table(points: list[Point], config: ScalingConfig) -> Table:
    """The measurements for a reader.

    Args:
      points: all of them.
      config: for the title.
    """
    return Table(
        title=f"{config.model}, {config.batch_size} prompts a step",
        columns=("Layers", "Tokens", "Step, s", "XLA memory, MB"),
        rows=tuple(
            (str(p.layers), str(p.tokens), f"{p.step_s:.3f}", f"{p.xla_mb:.0f}") for p in points
        ),
    )


def draw(points: list[Point], title: str) -> Figure:
    """Time and memory over tokens, one line a depth.

    Args:
      points: measurements.
      title: above the panels.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    panels = {"step_s": "seconds a step", "xla_mb": "XLA memory, MB"}
    for axes, (name, label) in zip(figure.subplots(1, 2), panels.items()):
        for layers in sorted({p.layers for p in points}):
            line = [p for p in points if p.layers == layers]
            values = [getattr(p, name) for p in line]
            axes.plot([p.tokens for p in line], values, marker="o", label=f"{layers} layers")
        axes.set(xlabel="tokens a prompt", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


if __name__ == "__main__":
    command(ScalingConfig, scaling)
