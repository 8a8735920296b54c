"""The paper's protocol on a random model: every run once, tables that can be read."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.models.hub import save_model
from mgnp_jax.models.weights import init_params
from mgnp_jax.runs import paper


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with gpt2-mini's tokenizer."""
    import jax

    mini = mg.load_model("gpt2-mini")
    config = dataclasses.replace(mini.config, layers=2, width=16, head_width=2, mlp_width=24)
    params = init_params(jax.random.key(0), config)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(dataclasses.replace(mini, config=config, params=params), folder)
    return folder


def test_tables_are_written_and_finished_runs_kept(checkpoint: Path, tmp_path: Path) -> None:
    config = paper.PaperConfig(
        model=str(checkpoint),
        tasks=("gp",),
        seeds=2,
        out=tmp_path / "paper",
        test_prompts=20,
        config=mg.DiscoverConfig(steps=2, batch_size=4),
    )
    printed = io.StringIO()
    console = Console(file=printed, width=400)
    first = paper.protocol(config, console)
    assert "names come again in other templates" in printed.getvalue()
    # A run that was cut short is gone on with, the others are left alone.
    (tmp_path / "paper" / "gp-seed1" / "results.json").unlink()
    kept = tmp_path / "paper" / "gp-seed0" / "results.json"
    written = kept.stat().st_mtime_ns
    again = paper.protocol(config, console)
    assert kept.stat().st_mtime_ns == written
    assert again["gp"][1]["circuit"] == first["gp"][1]["circuit"]
    page = (tmp_path / "paper" / "tables.md").read_text()
    words = ("Table 1", "Table 2", "Table 5. gp, seed 0, by layer", "Overlap", "gp, 2 seeds")
    for part in (*words, "Attention heads", "KL, nats"):
        assert part in page
    with (tmp_path / "paper" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["seed"]) for row in rows] == [("gp", "0"), ("gp", "1")]
    assert float(rows[0]["circuit.kl"]) == first["gp"][0]["circuit"]["kl"]
    assert (tmp_path / "paper" / "trade-off.png").stat().st_size > 5_000
    other = dataclasses.replace(config, config=mg.DiscoverConfig(steps=3, batch_size=4))
    with pytest.raises(mg.MgnpError, match="gp-seed0 was run with another steps; pass"):
        paper.protocol(other, console)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(mg.MgnpError, match="some of ioi, gt, gp"):
        paper.PaperConfig(tasks=("proverb",))
