"""What a circuit is put beside: rows that must hold whatever the circuit, on the embedded model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.report.controls_table import real_table
from mgnp_jax.runs import compare as module
from mgnp_jax.runs.compare import compare
from mgnp_jax.runs.compare_config import CompareConfig
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.control_searches import with_shuffled_weights
from mgnp_jax.runs.controls import Controls, _as_edges, _freshly_corrupted


def here(work: Any, *arguments: Any, stop: Any) -> Any:
    """In place of a process for each."""
    return work(*arguments, Console(quiet=True))


def without_ioi(work: Any, *arguments: Any, stop: Any) -> Any:
    """The same where the tokenizer lacks the words of one task."""
    if getattr(arguments[0], "task", None) == "ioi":
        # Before any control is run.
        assert (arguments[0].out.parents[1] / "README.md").is_file()
        raise mg.MgnpError("only 2 of 90 names are single tokens")
    return here(work, *arguments, stop=stop)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, dict[str, Any]]:
    config = CompareConfig(
        task="gp",
        # Of all that rank, the one that finds at once.
        reference="magnitude",
        methods="random",
        settings=("magnitude.keep=0.3",),
        seeds=2,
        train_prompts=100,
        test_prompts=12,
        curve_prompts=2,
        controls=True,
        # The second is refused: a stranger's tokenizer may lack a task's words.
        control_tasks=("gp", "gt", "ioi"),
        out=tmp_path_factory.mktemp("controls") / "all",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "apart", without_ioi)
        compare(config, Console(quiet=True))
    rows = json.loads((Path(str(config.out)) / "controls.json").read_text())
    return config, {row["control"]: row for row in rows}


@pytest.mark.slow
def test_every_control_has_a_row_that_says_what_it_should_be(done: Any) -> None:
    config, rows = done
    wanted = {
        *("the circuit", "random, of its size", "everything but it", "nothing kept"),
        *("whole heads and MLPs of it", "the edges between these, as edges", "circuit of gt"),
        *("the circuit, other corrupted prompts", "everything but it, other corrupted prompts"),
        *("search on shuffled answers", "search on shuffled weights"),
        "circuit of ioi",
        *("search on half 0", "search on half 1", "overlap with random ones of its size"),
        *("overlap with other seeds'", "overlap of the halves'", "overlap with other tasks'"),
    }
    assert set(rows) == wanted
    table = real_table(list(rows.values()), "")
    assert all(cells[1] for cells in table.rows)
    (own,) = [cells for cells in table.rows if cells[0] == "the circuit"]
    circuit = rows["the circuit"]
    assert own[2:4] == (str(circuit["heads"]), f"{circuit['prunable_kept']:.1%}")
    page = (config.out / "README.md").read_text()
    assert rows["circuit of ioi"]["should"] == "not measured: only 2 of 90 names are single tokens"
    assert "Is the circuit real? magnitude, seed 3" in page and "--controls" in page


def test_searches_have_the_prompts_that_were_asked_for_and_other_tasks_their_own(
    done: Any,
) -> None:
    config, _ = done
    found = {
        name: mg.load_circuit(config.out / name).metadata["data"]["train"]
        for name in (
            "magnitude-seed3",
            "random-seed4",
            "controls/half-0-seed3",
            "controls/gt-seed3",
        )
    }
    assert list(found.values()) == [100, 100, 50, 150]


def test_rows_hold_that_must_whatever_the_circuit(done: Any) -> None:
    _, rows = done
    whole, edges = rows["whole heads and MLPs of it"], rows["the edges between these, as edges"]
    for name in ("kl", "score", "accuracy"):
        assert edges[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-4)
    nothing = rows["nothing kept"]
    assert nothing["heads"] == 0 and nothing["kl"] > 1
    # By weights alone: neither prompts nor answers nor halves of them make a difference.
    for name in ("overlap with other seeds'", "overlap of the halves'"):
        assert (rows[name]["overlap_heads"], rows[name]["overlap_hidden"]) == (1, 1)
    assert rows["overlap with random ones of its size"]["overlap_hidden"] < 0.6
    assert rows["search on half 0"]["kl"] == pytest.approx(rows["the circuit"]["kl"])
    assert rows["search on shuffled answers"]["base_accuracy"] < 0.9
    assert rows["the circuit"]["base_accuracy"] == 1


def test_nothing_is_searched_or_measured_again(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = done
    monkeypatch.setattr(module, "apart", without_ioi)
    kept = config.out / "figures" / "controls.json"
    before = (kept.stat().st_mtime_ns, (config.out / "controls.json").read_text())
    compare(config, Console(quiet=True))
    assert (kept.stat().st_mtime_ns, (config.out / "controls.json").read_text()) == before


def test_what_has_no_meaning_is_left_out_and_said(mini: mg.Model) -> None:
    circuit = mg.Circuit(masks=mg.full_masks(mini.config), metadata={})
    constant = dataclasses.replace(circuit, ablation_values={})
    no_prompts: Any = None
    row = _as_edges(mini, constant, no_prompts)
    assert "kl" not in row and "not measured: " in row["should"] and "constants" in row["should"]
    run = RunConfig(task="gt", seed=3)
    controls = Controls(run=run, seeds=(), tasks={}, searches={}, missing={}, file=Path())
    (row,) = _freshly_corrupted(controls, mini, circuit)
    assert row["should"] == "not measured: gt knows no others for its clean prompts"


@pytest.mark.parametrize(
    ("task", "others"),
    [("gt-other", ("ioi", "gp")), ("gt", ("ioi", "gp")), ("ioi", ("gt", "gp", "gt-other"))],
)
def test_variants_of_the_task_are_no_other_tasks(task: str, others: tuple[str, ...]) -> None:
    every = ("ioi", "gt", "gp", "gt-other")
    assert CompareConfig(task=task, control_tasks=every).other_tasks == others


def test_shuffled_weights_are_the_same_values_elsewhere(mini: mg.Model) -> None:
    other = with_shuffled_weights(mini, 0)
    for ours, theirs in zip(*map(jax.tree.leaves, (mini.params, other.params)), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))
        assert len(np.unique(ours)) == 1 or (ours != theirs).mean() > 0.3
