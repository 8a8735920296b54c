"""Methods side by side on the embedded model, with few steps and few prompts."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.masks.edges import existing
from mgnp_jax.masks.levels import level_of
from mgnp_jax.metrics.curves import KEEPS
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.report.comparison import chosen, methods_in, size_table, wins
from mgnp_jax.runs import compare as module
from mgnp_jax.runs.beside import ranks_all
from mgnp_jax.runs.compare import compare
from mgnp_jax.runs.compare_config import CompareConfig
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.matched import _cost
from tests.experiments.processes import few_pairs
from tests.experiments.test_commands import call_here

KEYS = {
    *("method", "seed", "edge_sparsity", "prunable_kept", "kl", "score", "accuracy"),
    *("heads", "edges", "seconds", "peak_mb"),
}
SHORT = tuple(
    f"node-pruning.{setting}"
    for setting in (
        *("steps=6", "batch-size=4", "validate-every=3", "validation-prompts=8"),
        *("learning-rate=2.0", "keep=0.3", "warmup=0"),
    )
)


def here(work: Any, *arguments: Any, stop: Any) -> Any:
    """In place of a process for each: what they compile is shared."""
    return work(*arguments, Console(quiet=True))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few enough that hardly anything but compiling takes time."""
    return few_pairs(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def done(
    prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CompareConfig, list[dict[str, Any]]]:
    config = CompareConfig(
        data=prompts,
        methods="eap,random,magnitude,acdc",
        seeds=2,
        settings=(*SHORT, "eap.effect-on=score", "acdc.prompts=2", "acdc.most-tests=2"),
        test_prompts=4,
        curve_prompts=2,
        out=tmp_path_factory.mktemp("compare") / "all",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "apart", here)
        return config, compare(config, Console(quiet=True))


@pytest.mark.slow
def test_every_method_and_seed_has_its_rows(done: Any) -> None:
    config, rows = done
    assert json.loads((config.out / "comparison.json").read_text()) == rows
    assert all(row.keys() >= KEYS for row in rows)
    found = [(row["method"], row["seed"], row["matched"]) for row in rows]
    assert len(set(found)) == len(found)
    ranked = {
        (m, s, size)
        for m in ("eap", "magnitude", "random")
        for s in (3, 4)
        for size in ("own", "edges", "parameters")
    }
    single = {(m, s, "own") for m in ("node-pruning", "acdc") for s in (3, 4)}
    assert set(found) == ranked | single
    for row in rows:
        assert row["seconds"] > 0 and row["peak_mb"] > 50
        assert 0 <= row["accuracy"] <= 1 and row["kl"] > -1e-6
        assert sum(row["heads_by_layer"]) == row["heads"]


def test_sizes_are_matched_from_below_as_closely_as_the_ranking_allows(
    done: Any, mini: mg.Model
) -> None:
    config, rows = done
    for seed in (3, 4):
        (ours,) = [r for r in rows if (r["method"], r["seed"]) == ("node-pruning", seed)]
        assert 0 < ours["prunable_kept"] < 0.98
        for method in ("eap", "magnitude", "random"):
            own = {r["matched"]: r for r in rows if (r["method"], r["seed"]) == (method, seed)}
            assert own["edges"]["edges"] <= ours["edges"] and own["edges"]["within"]["edges"]
            assert own["parameters"]["prunable_kept"] <= ours["prunable_kept"]
            circuit = mg.load_circuit(config.out / "matched" / f"{method}-seed{seed}-parameters")
            nodes = level_of(circuit.masks).nodes(mini.config, circuit.masks)
            kept = own["parameters"]["prunable_kept"]
            assert prunable_share(mini.config, nodes) == pytest.approx(kept)
            # Edge by edge, a ranking of edges gets as near as one.
            assert method != "eap" or ours["edges"] - own["edges"]["edges"] <= 1


def test_parameters_are_matched_to_within_one_node(done: Any, mini: mg.Model) -> None:
    config, rows = done
    (ours,) = [r for r in rows if (r["method"], r["seed"]) == ("node-pruning", 3)]
    circuit = mg.load_circuit(config.out / "matched" / "magnitude-seed3-parameters")
    hidden = int(circuit.masks["mlp_hidden"].sum())
    total = circuit.masks["mlp_hidden"].size
    larger = circuit.at(keep=(hidden + 1) / total)
    assert prunable_share(mini.config, larger.masks) > ours["prunable_kept"]


def test_the_folder_holds_circuits_that_measure_as_the_rows_say(done: Any, mini: mg.Model) -> None:
    config, rows = done
    test = mg.load_task(config.data, mini.tokenizer, seed=4).test.take(slice(4))
    for method, matched in (("eap", "edges"), ("magnitude", "parameters")):
        (row,) = [r for r in rows if (r["method"], r["seed"], r["matched"]) == (method, 4, matched)]
        circuit = mg.load_circuit(config.out / "matched" / f"{method}-seed4-{matched}")
        figures = mg.evaluate(mini, circuit, test)
        for name in ("kl", "score", "accuracy"):
            assert figures[name] == pytest.approx(row[name], abs=1e-5)
        sizes = mg.circuit_sizes(mini.config, circuit.masks)
        assert sizes["edges"]["active"] == row["edges"]
    # As many nodes of each granularity as the reference, where a method can be asked for that.
    like = mg.load_circuit(config.out / "random-seed3").masks
    for name, mask in mg.load_circuit(config.out / "node-pruning-seed3").masks.items():
        assert int(mask.sum()) == int(like[name].sum())


def test_curves_end_at_the_model(done: Any) -> None:
    config, rows = done
    with (config.out / "curves.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert {row["method"] for row in curve} == {"node-pruning", "eap", "magnitude", "random"}
    for method in ("node-pruning", "eap", "magnitude", "random"):
        own = [row for row in curve if (row["method"], row["seed"]) == (method, "3")]
        assert [float(row["keep"]) for row in own] == list(KEEPS)
        assert float(own[-1]["kl"]) == pytest.approx(0, abs=1e-5)
        assert float(own[-1]["faithfulness"]) == pytest.approx(1, abs=1e-4)
        kept = [float(row["edge_sparsity"]) for row in own]
        assert kept == sorted(kept, reverse=True) and kept[-1] == 0
        areas = next(row for row in rows if (row["method"], row["seed"]) == (method, 3))
        assert areas["cmd"] >= 0 and areas["cmd"] + areas["cpr"] >= 1 - 1e-9
    assert next(row for row in rows if row["method"] == "acdc")["cmd"] is None


def test_the_page_says_who_wins_and_shows_every_method(done: Any) -> None:
    config, rows = done
    page = (config.out / "README.md").read_text()
    words = ("As table 3, at equal edges", "at equal prunable parameters", "As tables 7 to 9")
    words += ("measured on 4 held-out test prompts", "not comparable with each other")
    for part in (*words, "CMD", "Peak memory", *methods_in(rows), *wins(rows, "node-pruning")):
        assert part in page.replace("\\", "")
    assert page.index("At equal edges") < page.index("**As table 3")
    command = f"python -m experiments.compare --data {config.data}"
    assert (
        f"`{command} --methods eap,random,magnitude,acdc --seeds 2 --set node-pruning.steps=6"
        in page
    )
    assert (config.out / "comparison.png").stat().st_size > 20_000


def test_what_is_done_is_not_done_again_and_what_is_lost_is(
    done: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, rows = done
    monkeypatch.setattr(module, "apart", here)
    watched = [*config.out.glob("*/results.json"), *config.out.glob("figures/*.json")]
    assert len(watched) == 20
    before = {file: file.stat().st_mtime_ns for file in watched}
    assert compare(config, Console(quiet=True)) == rows
    assert {file: file.stat().st_mtime_ns for file in watched} == before
    # In another place, too: a circuit to be like is known by what it is, not by where.
    moved = dataclasses.replace(config, out=tmp_path / "moved")
    shutil.copytree(config.out, moved.out)
    kept = moved.out / "magnitude-seed3" / "results.json"
    written = kept.stat().st_mtime_ns
    (moved.out / "figures" / "eap-seed4.json").unlink()
    assert compare(moved, Console(quiet=True)) == rows
    assert kept.stat().st_mtime_ns == written
    other = dataclasses.replace(config, settings=(*SHORT, "magnitude.keep=0.3"))
    with pytest.raises(mg.MgnpError, match="magnitude-seed3 was run with another keep"):
        compare(other, Console(quiet=True))


def test_a_search_done_again_and_lost_circuits_are_measured_anew(
    done: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, rows = done
    monkeypatch.setattr(module, "apart", here)
    moved = dataclasses.replace(config, seeds=1, out=tmp_path / "moved")
    shutil.copytree(config.out, moved.out)
    results = moved.out / "random-seed3" / "results.json"
    said = json.loads(results.read_text())
    said["training"]["seconds"] = 1234.5
    # Names of folders are not taken from a file that anybody may have written.
    said["method"] = "../../elsewhere"
    results.write_text(json.dumps(said))
    lost = moved.out / "matched" / "eap-seed3-edges"
    shutil.rmtree(lost)
    found = compare(moved, Console(quiet=True))
    assert [row["seconds"] for row in found if row["method"] == "random"] == 3 * [1234.5]
    assert mg.load_circuit(lost).metadata["at"]
    assert {row["method"] for row in found} == {row["method"] for row in rows}


def test_costs_of_a_search_within_another_are_those_of_both(tmp_path: Path) -> None:
    for name, seconds, peak in (("first", 10.0, 300.0), ("second", 1.0, 200.0)):
        training = {"seconds": seconds, "peak_mb": peak}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"training": training}))
    method: Any = mg.METHODS["hybrid"]
    config = method(within=tmp_path / "first")
    run = RunConfig(task="gp", out=tmp_path / "second", config=config)
    assert _cost(run) == {"seconds": 11.0, "peak_mb": 300.0, "after": True}
    (tmp_path / "first" / "results.json").unlink()
    assert _cost(run) == {"seconds": None, "peak_mb": None, "after": True}
    alone = dataclasses.replace(run, method="", config=mg.METHODS["eap"]())
    assert _cost(alone) == {"seconds": 1.0, "peak_mb": 200.0, "after": False}


def test_a_ranking_of_some_edges_is_told_from_one_of_all(mini: mg.Model) -> None:
    there: Any = existing(mini.config)
    every: Any = {n: np.where(e, 1.0, -np.inf).astype(np.float32) for n, e in there.items()}
    some: Any = {**every, "v_edges": np.full_like(every["v_edges"], -np.inf)}
    for scores, all_of_them in ((every, True), (some, False), (None, False)):
        circuit = mg.Circuit(masks=there, scores=scores, metadata={})
        assert ranks_all(mini.config, circuit) == all_of_them


def test_rivals_win_where_they_are_better_and_no_larger() -> None:
    def row(method: str, seed: int, kl: float, *, matched: str, within: bool) -> dict[str, Any]:
        sizes = {"edge_sparsity": 97.0, "prunable_kept": 0.1, "heads": 3, "score": 1.0}
        figures = {"kl": kl, "accuracy": 0.9, "seconds": 1.0, "peak_mb": 100.0}
        base = {"base_score": 1.0, "base_accuracy": 1.0}
        own = {"within": {"edges": within, "parameters": within}}
        return {
            "method": method,
            "seed": seed,
            "matched": matched,
            **sizes,
            **figures,
            **base,
            **own,
        }

    rows = [
        *(row("ours", seed, kl, matched="own", within=True) for seed, kl in ((3, 0.2), (4, 0.4))),
        *(row("good", seed, 0.25, matched="edges", within=True) for seed in (3, 4)),
        *(row("good", seed, 0.5, matched="parameters", within=True) for seed in (3, 4)),
        *(row("large", seed, 0.0, matched="own", within=seed == 3) for seed in (3, 4)),
    ]
    first, *others = wins(rows, "ours")
    assert first == "At equal edges, a lower KL than ours (0.3000): good 0.2500 (in 1 of 2 seeds)"
    assert "At equal prunable parameters, no rival has a lower KL than ours (0.3000)" in others
    assert all("no rival" in text for text in others)
    assert [r["kl"] for r in chosen(rows, "large", "edges")] == [0.0, 0.0]
    labels = [cells[0] for cells in size_table(rows, "edges", "").rows]
    assert labels == ["(the model)", "ours", "good", "large ▲"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"methods": "eap,nonsense"}, "unknown method 'nonsense': wanted one of node-pruning"),
        ({"reference": "ours"}, "unknown method 'ours'"),
        ({"settings": ("nonsense.steps=3",)}, "METHOD one of node-pruning.*'nonsense.steps=3'"),
        ({"settings": ("eap.steps=3",)}, "the fields of eap are effect_on, .*'eap.steps=3'"),
        ({"settings": ("eap.keep",)}, "METHOD.FIELD=VALUE, such as"),
        ({"settings": ("eap.signed=maybe",)}, "eap.signed wants bool, got 'maybe'"),
        ({"settings": ("eap.keep=3",)}, r"keep must lie in \(0, 1\], got 3.0"),
        ({"settings": ("node-pruning.steps=few",)}, "steps wants int, got 'few'"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"first_seed": -1}, "--first-seed must be at least 0"),
        ({"test_prompts": 0}, "--test-prompts must be at least 1"),
        ({"train_prompts": 0}, "--train-prompts must be at least 1"),
        ({"curve_prompts": 0}, "--curve-prompts must be at least 1"),
        ({"task": None}, "pass one of --task"),
        ({"reference": "hybrid"}, "--reference hybrid: it works within .*--set hybrid.within="),
        (
            {"settings": ("node-pruning.ablation=mean",), "methods": "edge-pruning,magnitude"},
            "node-pruning has mean, but edge-pruning has interchange, magnitude has interchange",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(mg.MgnpError, match=told):
        CompareConfig(**{"task": "gp", **asked})


def test_settings_reach_their_method_alone() -> None:
    config = CompareConfig(
        task="gp", settings=("node-pruning.memory-gib=2", "node-pruning.penalties.mlp_blocks=3")
    )
    first = config.run_of("node-pruning", 3, Path()).config
    assert (first.execution.memory_gib, first.penalties.mlp_blocks) == (2.0, 3.0)
    assert config.run_of("eap", 3, Path()).config == mg.METHODS["eap"]()


def test_all_methods_train_on_the_same_prompts(prompts: Path) -> None:
    asked: dict[str, Any] = {"train_prompts": 40, "extra_corruptions": 0, "skip_bad": True}
    config = CompareConfig(data=prompts, methods="eap,random", **asked)
    for run in (config.run_of(name, 3, Path()) for name in config.names):
        assert {name: getattr(run, name) for name in asked} == asked
    assert "--skip-bad --train-prompts 40 --extra-corruptions 0" in config.command
    assert "--train-prompts" not in dataclasses.replace(config, train_prompts=None).command


def test_the_command_runs_each_method_in_a_process_of_its_own(
    prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ("--data", prompts, "--reference", "magnitude", "--methods", "random", "--seeds", 1)
    asked += ("--test-prompts", 4, "--curve-prompts", 2, "--out", tmp_path / "all")
    assert call_here("experiments.compare", *asked) == 0
    rows = json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert [(row["method"], row["matched"]) for row in rows] == [
        ("magnitude", "own"),
        *(("random", size) for size in ("own", "edges", "parameters")),
    ]
    assert "open index.html, or README.md" in " ".join(capfd.readouterr().out.split())
    assert call_here("experiments.compare", *asked, "--methods", "nonsense") == 2
    assert "unknown method 'nonsense': wanted one of" in capfd.readouterr().err
