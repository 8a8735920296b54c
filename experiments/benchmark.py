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
import itertools
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import mgnp_jax as mg
from experiments.command import command
from experiments.published import PADDED, megabytes, published
from experiments.workload import (
    closed_for_good,
    load,
    multiply_adds,
    random_prompts,
    task_prompts,
)
from mgnp_jax.models.layers import sealed
from mgnp_jax.report.tables import Table
from mgnp_jax.train import schedule
from mgnp_jax.train.compaction import Compaction
from mgnp_jax.train.loop import init_state, train_step
from mgnp_jax.train.prompts import keep_what_fits
from mgnp_jax.train.shares import shares

LEAN_PARTS = 8
"""Parts that a batch runs in where memory is measured."""


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
        if self.discover.devices != 1:
            raise mg.MgnpError("the benchmark times one device; leave --devices at 1")
        if self.discover.cache == "off":
            raise mg.MgnpError(
                "the benchmark's compacted step needs the corrupted run's values; the memory of "
                "--cache off is reported as 'lean' anyway, so leave --cache at another mode"
            )


def measure_matrix_rate(config: mg.ModelConfig, tokens: int) -> Callable[[], float]:
    """A function that times products of the model's shapes, in multiply-adds a second.

    Args:
      config: the model's shape.
      tokens: rows of the left factor.
    """
    rng = np.random.default_rng(0)
    shapes = (tokens, config.width), (config.width, config.mlp_width)
    x, up = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    down = up.T + 0

    @jax.jit
    def products(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return (x @ up) @ down

    products(x, up, down).block_until_ready()
    work = 2 * tokens * config.width * config.mlp_width
    # Long enough to be timed; products of a tiny shape cost little but the calls.
    times = min(200, max(1, int(2e10 / work)))

    def rate() -> float:
        started = time.perf_counter()
        for _ in range(times):
            out = products(x, up, down)
        out.block_until_ready()
        return times * work / (time.perf_counter() - started)

    return rate


def ours(
    discover: mg.DiscoverConfig,
    model: mg.Model,
    batch: mg.Batch,
    compaction: Compaction | None = None,
) -> tuple[Callable[[], float], float, float]:
    """Our step, compiled: a function that times one, compile seconds, XLA's megabytes.

    Args:
      discover: how it is run.
      model: the model.
      batch: training prompts.
      compaction: what is left of the model; None for all of it.
    """
    params = sealed(model.params, discover.dtype)
    (kept,) = keep_what_fits(model.config, params, [batch], discover)
    kept = kept if compaction is None else kept.compacted(compaction)
    key, aim = jax.random.key(0), schedule.first_aim(discover)
    tokens = kept.where.lengths - kept.where.starts
    order = schedule.batch_order(key, tokens, discover.batch_size, discover.steps)
    parts = shares(1, discover.accumulate)
    sizes = parts.sizes(kept.where, order)
    state = init_state(discover, model.config)
    fixed = (discover, model.config, key, params)
    started = time.perf_counter()
    piece = parts.piece(kept, order[0], sizes)
    compiled = train_step.lower(*fixed, state, piece, aim, compaction).compile()
    compile_s = time.perf_counter() - started
    steps = itertools.cycle(range(discover.steps))

    def step() -> float:
        nonlocal state
        started = time.perf_counter()
        piece = parts.piece(kept, order[next(steps)], sizes)
        state, out = compiled(key, params, state, piece, aim, compaction)
        jax.block_until_ready((state, out))
        return time.perf_counter() - started

    return step, compile_s, megabytes(compiled)


def memory(config: BenchmarkConfig, model: mg.Model) -> dict[str, float]:
    """XLA's megabytes of a step on prompts of `PADDED` tokens, weights included.

    Args:
      config: batch size.
      model: the model.

    Returns:
      Of the leanest mode in both precisions, and of the leanest on values kept of the
      corrupted run.
    """
    parts = math.gcd(LEAN_PARTS, config.discover.batch_size)
    lean = dataclasses.replace(config.discover, cache="off", remat=True, accumulate=parts)
    modes = {
        "lean_float32": dataclasses.replace(lean, dtype="float32"),
        "lean_bfloat16": dataclasses.replace(lean, dtype="bfloat16"),
        "cached_float32": dataclasses.replace(lean, dtype="float32", cache="batch"),
    }
    long = random_prompts(config.discover.batch_size, PADDED)
    return {name: ours(mode, model, long)[2] for name, mode in modes.items()}


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
    rate = measure_matrix_rate(model.config, int(real * discover.batch_size))
    old, old_mb = published(discover, model, batch) if config.published else (None, None)
    small, _, _ = ours(
        discover, model, batch, closed_for_good(model, config.closed, discover.dtype)
    )
    steps = {"ours": step, "compacted": small}
    if config.prefix:
        longer = dataclasses.replace(discover, share_prefix=False)
        steps["without_prefix"], _, _ = ours(longer, model, batch)
    if old is not None:
        steps["published"] = old
    for run in steps.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in ("rate", *steps)}
    for _ in range(config.repeats):
        times["rate"].append(rate())
        for name, run in steps.items():
            times[name] += [run() for _ in range(1 if name == "published" else 3)]
    medians = {name: statistics.median(values) for name, values in times.items() if values}
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
        "compacted": {"closed": config.closed, "step_s": medians["compacted"]},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if config.memory:
        result["memory_mb"] = memory(config, model)
        result["xla_mb"] = result["memory_mb"]["lean_float32"]
    if old is not None:
        result["published"] = {"step_s": medians["published"], "xla_mb": old_mb}
        result["speedup"] = medians["published"] / medians["ours"]
        result["compacted"]["speedup"] = medians["published"] / medians["compacted"]
    if config.prefix:
        result["without_prefix"] = {
            "step_s": medians["without_prefix"],
            "ratio": medians["without_prefix"] / medians["ours"],
        }
    console.print(table(result).rich())
    if config.json is not None:
        config.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


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
    if "published" in result:
        rows.insert(1, ("Published step, s", f"{result['published']['step_s']:.3f}"))
        rows.insert(3, ("Times faster", f"{result['speedup']:.1f}"))
    small = result["compacted"]
    faster = f" ({small['speedup']:.1f} × faster)" if "speedup" in small else ""
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
