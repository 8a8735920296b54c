"""The benchmark measures on a tiny shape; no timing is asserted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from rich.console import Console

import mgnp_jax as mg
from experiments.benchmark import scaling, torch_published, workload
from experiments.benchmark.published import padded
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


def test_the_passes_in_torch_are_ours() -> None:
    torch = pytest.importorskip("torch")
    model = workload.load("gpt2-tiny-random")
    batch = padded(4, workload.random_prompts(4, 12))
    rng = np.random.default_rng(0)
    gates = {
        name: rng.random(leaf.shape, np.float32)
        for name, leaf in mg.full_masks(model.config, 1.0).items()
    }
    flat = flatten_dict(model.params, sep="/")
    params = {name: torch.tensor(np.asarray(leaf)) for name, leaf in flat.items()}
    clean, corrupted, mask = (
        torch.tensor(np.asarray(a)) for a in (batch.clean, batch.corrupted, batch.attention_mask)
    )
    plain, _ = torch_published.run(model.config, params, clean, mask)
    other = torch_published.run(model.config, params, corrupted, mask)[1]
    ours = {name: torch.tensor(leaf) for name, leaf in gates.items()}
    masked, _ = torch_published.run(model.config, params, clean, mask, ours, other)
    fixed = (model.config, model.params)
    own_plain = mg.forward(*fixed, batch.clean, batch.attention_mask)
    own_masked = mg.two_stream_forward(
        *fixed, gates, batch.clean, batch.corrupted, batch.attention_mask
    )
    real = np.asarray(batch.attention_mask)
    for found, own in ((plain, own_plain), (masked, own_masked)):
        np.testing.assert_allclose(found.numpy()[real], np.asarray(own)[real], atol=2e-5)


def test_the_published_step_is_timed_in_torch_beside_ours(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    short = "--model gpt2-tiny-random --tokens 12 --repeats 1 --batch-size 4 --steps 20 --no-memory"
    flags = ("experiments.benchmark", *short.split(), "--torch", "--json", "figures.json")
    assert call_here(*flags, cwd=tmp_path) == 0
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["torch"]["speedup"] == result["torch"]["step_s"] / result["ours"]["step_s"] > 0


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
