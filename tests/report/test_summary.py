"""A run's figures as one table: nothing lost, and no wider than a terminal."""

from __future__ import annotations

import io
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.report.summary import summary
from mgnp_jax.report.tables import curve_table, faithfulness_table, size_table
from tests import tiny

FIGURES = {"score": -10.12345, "accuracy": 0.98765, "kl": 12.34567, "prompts": 12_256}


def results_of(sizes: dict[str, Any]) -> dict[str, Any]:
    """Results with figures that are as long as they get."""
    base = {name: FIGURES[name] for name in ("score", "accuracy")}
    return {
        "task": "gendered-pronouns",
        "model": "meta-llama/Llama-3.1-8B",
        "method": "node-pruning-published",
        "base": {**base, "other_scores": {"prob_diff": -0.5}},
        "circuit": {
            **FIGURES,
            **{"exact_match": 0.5, "kl_years": 1.25, "other_scores": {"prob_diff": 0.25}},
        },
        "answered": {**FIGURES, "base_score": 7.125, "prompts": 12_001},
        "controls": {
            name: {**FIGURES, "score": float(i), "prompts": 200}
            for i, name in enumerate(("circuit", "random", "complement", "empty"))
        },
        "train": {**FIGURES, "base_score": 1.0, "base_accuracy": 0.75, "prompts": 150},
        **sizes,
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    masks = jax.tree.map(np.array, mg.full_masks(tiny.GPT2, 1.0))
    masks["attention_heads"][0, 2:] = 0
    return results_of(mg.circuit_sizes(tiny.GPT2, masks))


def printed(results: dict[str, Any], width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(summary(results))
    return out.getvalue().splitlines()


def test_every_figure_of_the_tables_is_in_it(results: dict[str, Any]) -> None:
    row = {"prunable_kept": 0.1, "edge_sparsity": 99.0, "kl": 0.25, "score": 1.5, "accuracy": 0.5}
    row |= {"heads": 3}
    # The first two sizes have one circuit, which is told once.
    results = {**results, "curve": [row, row, {**row, "prunable_kept": 0.2, "kl": 0.125}]}
    lines = [" ".join(line.split()) for line in printed(results)]
    tables = size_table(results), faithfulness_table(results), curve_table(results["curve"], 200)
    for row in itertools.chain.from_iterable(table.rows for table in tables):
        told = " ".join(" ".join(row).split())
        assert any(line.startswith(told) for line in lines), told
    # Random, rest and nothing stand beside the circuit's own figures.
    assert "Score -10.1235 -10.1235 1.0000 2.0000 3.0000" in lines
    assert "Accuracy, training 0.7500 0.9877" in lines
    told = " ".join(lines)
    sizes = [line.split() for line in lines if line.endswith("99.00 0.2500 1.5000 0.5000")]
    assert sizes == [["10.00", "3", "99.00", "0.2500", "1.5000", "0.5000"]]
    assert "nothing, other sizes: the first 200" in told and "12,256 test prompts" in told


def test_it_fits_80_columns_for_the_largest_models(results: dict[str, Any]) -> None:
    most = {"active": 8_030_261_248, "total": 8_030_261_248}
    lines = printed({**results, "parameters": {**results["parameters"], **most}})
    assert max(map(len, lines)) <= 80
    assert any(line.count("8,030,261,248") == 2 for line in lines)
    assert not any("…" in line for line in lines)


def test_results_of_runs_that_measured_no_training_prompts(results: dict[str, Any]) -> None:
    older = {name: value for name, value in results.items() if name != "train"}
    assert not any("training" in line for line in printed(older))
