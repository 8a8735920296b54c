"""The benchmark measures on a tiny shape; no timing is asserted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.benchmark import scaling, workload
from tests.experiments.test_commands import call_here
from tests.experiments.test_readme import COMMANDS


def test_benchmark_writes_its_figures(tmp_path: Path) -> None:
    (command,) = [c for c in COMMANDS if "experiments.benchmark" in c]
    short = ("--model", "gpt2-tiny-random", "--repeats", 1, "--batch-size", 4, "--steps", 20)
    assert call_here(*shlex.split(command)[2:], *short, cwd=tmp_path) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert {"matrix_gflops", "published", "ours", "speedup", "xla_mb", "peak_rss_mb"} <= set(result)
    numbers = [result["published"]["step_s"], *result["ours"].values(), result["xla_mb"]]
    assert all(np.isfinite(n) and n > 0 for n in numbers)
    assert set(result["memory_mb"]) == {"lean_float32", "lean_bfloat16", "cached_float32"}
    assert result["xla_mb"] < result["memory_mb"]["cached_float32"]


def test_the_floor_counts_every_matrix_once() -> None:
    model = workload.load("gpt2-tiny-random")
    c = model.config
    batch = workload.random_prompts(3, 10)
    per_token = c.layers * (4 * c.width**2 + 2 * c.width * c.mlp_width)
    attention = 2 * c.layers * c.width * (10 * 11 / 2)
    expected = 10 * per_token + attention + c.vocab_size * c.width
    assert workload.multiply_adds(c, model.params, batch) == expected


def test_scaling_measures_every_depth_and_length(tmp_path: Path) -> None:
    config = scaling.ScalingConfig(
        out=tmp_path / "scaling.png",
        model="gpt2-tiny-random",
        layers=(1, 2),
        tokens=(6,),
        batch_size=2,
        repeats=1,
    )
    points = scaling.scaling(config, Console(quiet=True))
    assert [(p.layers, p.tokens) for p in points] == [(1, 6), (2, 6)]
    assert points[0].xla_mb < points[1].xla_mb
    assert config.out.stat().st_size > 5_000
