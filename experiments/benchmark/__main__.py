"""Times a training step against the published algorithm and against the machine's floor.

    python -m experiments.benchmark --model gpt2-small-random --json benchmark.json

All in one process, alternately and repeated, medians. The published algorithm runs three
passes a step (model, corrupted, masked) on prompts padded to 64 tokens and computes logits
at every position; the floor is the multiply-adds of one masked forward pass and its activation
gradient on all of the prompts' real tokens, at the rate that plain matrix products of the
model's shapes reach here. Tokens that a pair shares at its beginning count in the floor though
our step leaves them out.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console

import mgnp_jax as mg
from experiments.benchmark.measure import measure_matrix_rate, memory, ours
from experiments.benchmark.published import PADDED, padded, published
from experiments.benchmark.torch_published import torch_published
from experiments.benchmark.workload import (
    closed_for_good,
    load,
    multiply_adds,
    random_prompts,
    task_prompts,
)
from experiments.command import command
from mgnp_jax.report.tables import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Times a training step against the published algorithm and the machine's floor."""

    model: str = "gpt2-small-random"
    """gpt2-{tiny,small,medium,large,xl}-random (random weights, nothing downloaded), or a
    real model as for experiments.run."""
    task: str = "ioi"
    """Prompts; random models take those of gpt2-mini's tokenizer."""
    tokens: int | None = None
    """Random prompts of so many tokens instead, which differ from the third on."""
    repeats: int = 5
    """Times each thing is measured; medians are reported."""
    published: bool = True
    """Measure the published algorithm, too."""
    torch: bool = False
    """Measure the published algorithm in PyTorch on the same device, too, where it is installed."""
    closed: float = 0.75
    """Share of heads and hidden neurons that are closed for good in the compacted step."""
    prefix: bool = False
    """Measure the step without shared prefixes, too."""
    memory: bool = True
    """Compile the leanest modes, too, and report their memory."""
    json: Path | None = None
    """Where to write the figures."""
    discover: Annotated[mg.DiscoverConfig, tyro.conf.arg(name="")] = mg.DiscoverConfig(
        batch_size=32
    )
    """How our step is run."""

    def __post_init__(self) -> None:
        """Refuses what is not measured."""
        if self.discover.execution.devices != 1:
            raise mg.MgnpError("the benchmark times one device; leave --devices at 1")
        if self.discover.execution.lockstep:
            raise mg.MgnpError(
                "the benchmark's compacted step needs the corrupted run's values; the memory of "
                "--cache off is reported as 'lean' anyway, so leave --cache at another mode"
            )


def benchmark(config: BenchmarkConfig, console: Console) -> dict[str, Any]:
    """Measures everything and prints a table.

    Args:
      config: what to measure.
      console: where to report.

    Returns:
      The figures, as in the JSON file.
    """
    model, discover = load(config.model), config.discover
    if config.tokens is None:
        batch = task_prompts(config.task, model)
    else:
        batch = random_prompts(max(discover.batch_size, 64), config.tokens)
    real = float(np.asarray(batch.attention_mask).sum(1).mean())
    step, compile_s, step_mb = ours(discover, model, batch)
    small, _, _ = ours(discover, model, batch, closed_for_good(model, config.closed, discover))
    steps = {"ours": step, "compacted": small}
    if config.prefix:
        longer = dataclasses.replace(discover.execution, share_prefix=False)
        longer = dataclasses.replace(discover, execution=longer)
        steps["without_prefix"], _, _ = ours(longer, model, batch)
    old_mb = 0.0
    if config.published:
        steps["published"], old_mb = published(discover, model, batch)
    if config.torch:
        steps["torch"] = torch_published(discover, model, padded(discover.batch_size, batch))
    rate = measure_matrix_rate(model.config, int(real * discover.batch_size))
    medians = timed(steps, rate, config.repeats)
    floor = 2 * discover.batch_size * multiply_adds(model.config, model.params, batch)
    result: dict[str, Any] = {
        "model": config.model,
        "device": jax.devices()[0].device_kind,
        "batch_size": discover.batch_size,
        "tokens_per_prompt": real,
        # Two operations a multiply-add.
        "matrix_gflops": 2e-9 * medians["rate"],
        "ours": {
            "step_s": medians["ours"],
            "tokens_per_s": real * discover.batch_size / medians["ours"],
            "floor_s": floor / medians["rate"],
            "floor_share": floor / medians["rate"] / medians["ours"],
            "compile_s": compile_s,
            "xla_mb": step_mb,
        },
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    result |= ratios(medians, old_mb, config.closed)
    if config.memory:
        result["memory_mb"] = memory(discover, model)
        result["xla_mb"] = result["memory_mb"]["lean_float32"]
    console.print(table(result).rich())
    if config.json is not None:
        config.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def timed(
    steps: dict[str, Callable[[], float]], rate: Callable[[], float], repeats: int
) -> dict[str, float]:
    """Medians of everything, measured alternately.

    Args:
      steps: functions that time one step, by name.
      rate: measures the machine's matrix rate.
      repeats: rounds; in each the published step runs once, ours three times.
    """
    for run in steps.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in ("rate", *steps)}
    for _ in range(repeats):
        times["rate"].append(rate())
        for name, run in steps.items():
            times[name] += [run() for _ in range(1 if name in ("published", "torch") else 3)]
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(medians: dict[str, float], old_mb: float, closed: float) -> dict[str, Any]:
    """What else was measured, over our step.

    Args:
      medians: seconds by name.
      old_mb: the published step's memory.
      closed: share of the nodes that is left out in the compacted step.
    """
    small: dict[str, float] = {"closed": closed, "step_s": medians["compacted"]}
    found: dict[str, Any] = {"compacted": small}
    if "published" in medians:
        small["speedup"] = medians["published"] / medians["compacted"]
        found["published"] = {"step_s": medians["published"], "xla_mb": old_mb}
        found["speedup"] = medians["published"] / medians["ours"]
    if "torch" in medians:
        found["torch"] = {
            "step_s": medians["torch"],
            "speedup": medians["torch"] / medians["ours"],
        }
    if "without_prefix" in medians:
        found["without_prefix"] = {
            "step_s": medians["without_prefix"],
            "ratio": medians["without_prefix"] / medians["ours"],
        }
    return found


def table(result: dict[str, Any]) -> Table:
    """The figures for a reader.

    Args:
      result: as `benchmark` returns it.
    """
    own = result["ours"]
    rows = [
        ("Matrix products, Gflop/s", f"{result['matrix_gflops']:.1f}"),
        ("Our step, s", f"{own['step_s']:.3f}"),
        ("Our tokens/s", f"{own['tokens_per_s']:.0f}"),
        ("Floor, s (share reached)", f"{own['floor_s']:.3f} ({own['floor_share']:.0%})"),
        ("Our compilation, s", f"{own['compile_s']:.1f}"),
        ("Our XLA memory, MB", f"{own['xla_mb']:.0f}"),
        ("Peak of the process, MB", f"{result['peak_rss_mb']:.0f}"),
    ]
    small = result["compacted"]
    faster = f" ({small['speedup']:.1f} × faster)" if "speedup" in small else ""
    if "published" in result:
        rows.insert(1, ("Published step, s", f"{result['published']['step_s']:.3f}"))
        rows.insert(3, ("Times faster", f"{result['speedup']:.1f}"))
    if "torch" in result:
        text = f"{result['torch']['step_s']:.3f} ({result['torch']['speedup']:.1f} × ours)"
        rows.insert(1, ("Published step in PyTorch, s", text))
    rows.append((f"Our step, {small['closed']:.0%} closed, s", f"{small['step_s']:.3f}{faster}"))
    for name, size in result.get("memory_mb", {}).items():
        rows.append((f"{name.replace('_', ', ')}, {PADDED} tokens, MB", f"{size:.0f}"))
    if "without_prefix" in result:
        longer = result["without_prefix"]
        text = f"{longer['step_s']:.3f} ({longer['ratio']:.2f} × ours)"
        rows.append(("Our step without shared prefixes, s", text))
    title = (
        f"{result['model']}, {result['batch_size']} prompts of "
        f"{result['tokens_per_prompt']:.1f} tokens, {result['device']}"
    )
    return Table(title=title, columns=("", "Median"), rows=tuple(rows))


if __name__ == "__main__":
    command(BenchmarkConfig, benchmark)
