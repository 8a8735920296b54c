"""Tables and figures from results alone."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.report import figures, run_folder, tables
from mgnp_jax.report.progress import TrainingProgress
from tests import tiny


@pytest.fixture(scope="module")
def masks() -> mg.Masks:
    masks = jax.tree.map(np.array, mg.full_masks(tiny.GPT2, 1.0))
    masks["attention_blocks"][1] = 0
    masks["attention_heads"][0, 2:] = 0
    masks["mlp_hidden"][2, 5:] = 0
    from mgnp_jax.masks.hierarchy import apply_hierarchy

    return apply_hierarchy({k: jax.numpy.asarray(m, bool) for k, m in masks.items()})


def test_size_table_counts_each_granularity(masks: mg.Masks) -> None:
    table = tables.size_table(mg.circuit_sizes(tiny.GPT2, masks))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Attention blocks"] == ("2", "3", "33.3")
    assert rows["Attention heads"] == ("6", "12", "50.0")
    assert rows["MLP hidden neurons"] == ("45", "60", "25.0")
    assert "| Attention heads | 6 | 12 | 50.0 |" in table.markdown()


def test_layer_table_is_table_4(masks: mg.Masks) -> None:
    table = tables.layer_table(masks)
    assert table.rows[0] == ("0", "active", "active", "2/4", "6/12", "20/20", "12/12")
    assert table.rows[1][1] == "pruned" and table.rows[1][3] == "0/4"
    assert table.rows[2][5] == "5/20"


def test_faithfulness_table_has_both_columns() -> None:
    model = tiny.model("gpt2")
    figures_ = mg.evaluate(model, mg.full_masks(model.config), tiny.batch(model.config))
    circuit = mg.Circuit(
        masks={},
        log_alpha={},
        metadata={
            "task": "t",
            "model": "m",
            "method": "mine",
            "data": {},
            "origin": {"prefix": ""},
            "training": {},
        },
    )
    results = run_folder.results_of(circuit, 0, {}, figures_)
    # A method that says nothing of validations or its choice is as good as any.
    assert results["method"] == "mine" and "validation" not in results
    table = tables.faithfulness_table(results)
    score = next(row for row in table.rows if row[0] == "Score")
    assert score[1] == score[2] == f"{figures_['score']:.4f}"


def test_a_kl_that_rounding_left_below_zero_is_shown_as_zero() -> None:
    figures_ = {"kl": -1e-9, "score": -1.0, "prompts": 3}
    assert tables.comparison_table(figures_, None).rows == (
        ("kl", "0.000000"),
        ("score", "-1.000000"),
    )


def test_figures_are_drawn(masks: mg.Masks, tmp_path: Path) -> None:
    for name, draw in (("h", figures.heads_figure), ("n", figures.neurons_figure)):
        figure = draw(masks, "title")
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    image = figures.heads_figure(masks, "title").axes[0].images[0].get_array()
    assert image is not None
    kept = np.asarray(masks["attention_heads"])
    np.testing.assert_array_equal(np.asarray(image) > 0, kept)


def test_progress_prints_a_line_for_each_validation() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    shares = dict.fromkeys(mg.GRANULARITIES, 0.5)
    with TrainingProgress(10, console) as progress:
        terms = {"loss": 1.0, "kl": 0.1, "softened_kl": 0.4, "score_gap": 0.2, "penalty": 3.0}
        (shown,) = progress._progress.tasks
        progress({"step": 1, **terms, "kept": shares})
        assert (
            "loss 1.00 (of KL 0.100, softened 0.400, gap 0.200, L0 3.000)" in shown.fields["terms"]
        )
        del terms["softened_kl"]
        progress({"step": 2, **terms, "kept": shares})
        assert "loss 1.00 (of KL 0.100, gap 0.200, L0 3.000)" in shown.fields["terms"]
        values = {"step": 5, "kl": 0.25, "score": 1.0, "base_score": 2.0, "accuracy": 0.5}
        progress({"step": 5, "validation": {**values, "kept": shares}})
        progress({"step": 5, "validation": {**values, "kept": shares, "target": {}}})
    with TrainingProgress(None, console) as progress:
        # Whatever a method says.
        progress({"validation": {"kl": 0.5}})
        progress({"text": "half way"})
        progress({"cost": 3.0, "mine": [1]})
        progress({"step": 2, "mine": 1.5})
        (shown,) = progress._progress.tasks
        assert (shown.completed, shown.total) == (2, None)
        # Of how many, a method without steps may say on its way.
        progress({"step": 3, "of": 40, "kl": 0.25})
        assert (shown.completed, shown.total, shown.fields["terms"]) == (3, 40, "KL 0.250")
    assert "KL 0.500" in out.getvalue() and "half way" in out.getvalue()
    assert "step     5  KL 0.250  score 1.000 (model 2.000)" in out.getvalue()
    assert "settled on  KL 0.250" in out.getvalue()
    assert "heads 50%" in out.getvalue()
