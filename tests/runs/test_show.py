"""Pages by command: of a run, of what others wrote, of a folder of runs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.evidence import Evidence
from mgnp_jax.files import write_csv
from mgnp_jax.masks.levels import level_of
from mgnp_jax.runs.show import ShowConfig, curve_beside
from tests.experiments.test_commands import call_here
from tests.experiments.test_convert import edges_of
from tests.masks.test_edges import some_nodes
from tests.report.some_evidence import some_evidence

COMMAND = "experiments.show"


def content(file: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="content">(.*?)</script>', file.read_text(encoding="utf-8"))
    return json.loads(text)


@pytest.fixture
def run(tmp_path: Path, mini: mg.Model) -> Path:
    """A run's folder as far as a page asks for it."""
    folder = tmp_path / "runs" / "mine-seed0"
    metadata = {"model": "gpt2-mini", "task": "ioi", "method": "mine", "seed": 0}
    circuit = mg.Circuit(masks=some_nodes(mini.config), metadata=metadata)
    circuit.save(folder / "circuit")
    sizes = mg.circuit_sizes(mini.config, circuit.masks)
    figures = {"circuit": {"kl": 0.5, "score": 2.0}, "base": {"score": 3.0}}
    results = {**metadata, **figures, **sizes, "training": {"seconds": 3.0}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_run_has_its_page_and_the_list_links_to_it(
    run: Path, mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edges_of(mini).save(tmp_path / "edges")
    asked = ("--circuit", run, "--compare", tmp_path / "edges", "--curve-prompts", 0)
    assert call_here(COMMAND, *asked) == 0
    # Again, over its own; circuit/ is the run's, too.
    assert call_here(COMMAND, "--circuit", run / "circuit", *asked[2:]) == 0
    assert f"{run / 'index.html'} (0." in capsys.readouterr().out
    found = content(run / "index.html")
    assert found["title"]["name"] == "mine-seed0" and found["results"]["circuit"]["kl"] == 0.5
    (other,) = found["others"]
    assert other["title"]["name"] == "edges" and other["overlap"]["edges"][2] > 0
    assert call_here(COMMAND, "--runs", run.parent) == 0
    listed = (run.parent / "index.html").read_text()
    assert 'href="./mine-seed0/index.html"' in listed and "0.5000" in listed


def test_evidence_beside_a_circuit_is_shown(
    run: Path, mini: mg.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    found = some_evidence(mini.config, mg.load_circuit(run))
    for folder in (run, run / "evidence"):
        Evidence(**found).save(folder)
        assert call_here(COMMAND, "--circuit", run) == 0
        assert content(run / "index.html")["evidence"]["examples"] == found["examples"]
        (folder / "evidence.json").unlink()
    other = {**found["removal"], "attention_heads": {"score": [[0.0]]}}
    for part, why in (
        ({"removal": other}, "circuit, with other attention_heads"),
        ({"model": "gpt2"}, "model, gpt2, and this is gpt2-mini"),
    ):
        Evidence(**{**found, **part}).save(run)
        assert call_here(COMMAND, "--circuit", run) == 0
        assert f"The evidence in {run} is not shown: it is of another {why}" in (
            capsys.readouterr().out.replace("\n", " ")
        )
        assert content(run / "index.html")["evidence"] is None
    Evidence(**{**found, "removal": []}).save(run)
    assert call_here(COMMAND, "--circuit", run) == 2
    assert "has not the form that mg.explain gives evidence" in capsys.readouterr().err
    # What somebody puts there goes before what the command left within.
    Evidence(**found).save(run)
    Evidence(**{**found, "prompts_used": 3}).save(run / "evidence")
    assert mg.load_evidence(run).prompts_used == found["prompts_used"]


def test_evidence_of_other_edges_is_not_shown(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = edges_of(mini)
    metadata = {**circuit.metadata, "model": "gpt2-mini"}
    dataclasses.replace(circuit, metadata=metadata).save(tmp_path / "circuit")
    nodes = level_of(circuit.masks).nodes(mini.config, circuit.masks)
    found = some_evidence(mini.config, mg.Circuit(masks=nodes, metadata={}))
    first = next(iter(mg.edge_names(mini.config, circuit.masks)))
    for edge, shown in ((first.split("->"), True), (["m9", "logits"], False)):
        Evidence(**{**found, "edges": [[*edge, 0.5]]}).save(tmp_path)
        assert call_here(COMMAND, "--circuit", tmp_path, "--evidence-prompts", 0) == 0
        assert (content(tmp_path / "index.html")["evidence"] is not None) == shown
    assert "it is of another circuit, with other edges" in capsys.readouterr().out


def test_figures_of_another_circuit_or_model_are_not_passed_off(
    run: Path, mini: mg.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "results.json"
    results = json.loads(file.read_text())
    file.write_text(json.dumps({**results, "model": "./elsewhere"}))
    assert call_here(COMMAND, "--circuit", run) == 0
    (warned,) = content(run / "index.html")["results"]["warnings"]
    assert warned.endswith("was measured on ./elsewhere; evidence and curves are of gpt2-mini")
    results["sizes"]["attention_heads"]["active"] += 1
    file.write_text(json.dumps(results))
    assert call_here(COMMAND, "--circuit", run) == 0
    assert "it is of another circuit, with other attention_heads" in capsys.readouterr().out
    assert "circuit" not in content(run / "index.html")["results"]
    other = edges_of(mini)
    metadata = {**other.metadata, "model": "gpt2"}
    dataclasses.replace(other, metadata=metadata).save(run.parent / "theirs")
    asked = ("--circuit", run, "--compare", run.parent / "theirs", "--evidence-prompts", 0)
    assert call_here(COMMAND, *asked) == 2
    assert "theirs is a circuit of gpt2, the page's of gpt2-mini" in capsys.readouterr().err
    assert call_here(COMMAND, *asked, "--model", "gpt2-mini") == 0


def test_a_ranking_that_was_measured_nowhere_is_measured(
    run: Path, mini: mg.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    ranked = edges_of(mini)
    origin = {"source": "ioi", "seed": 0}
    metadata = {**ranked.metadata, "origin": origin}
    folder = run.parent / "edges-seed0"
    mg.Circuit(masks=ranked.masks, scores=ranked.scores, metadata=metadata).save(folder / "circuit")
    few = ("--curve-prompts", 4, "--evidence-prompts", 2)
    (folder / "results.json").write_text("{}")
    assert call_here(COMMAND, "--circuit", folder, *few) == 0
    assert content(folder / "index.html")["curve"] == []
    assert mg.load_evidence(folder).prompts_used == 2
    (folder / "results.json").write_text('{"circuit": {"kl": 1.0}}')
    assert call_here(COMMAND, "--circuit", folder, *few) == 0
    assert "Measuring circuits of ten sizes" in capsys.readouterr().out
    curve = content(folder / "index.html")["curve"]
    data = mg.load_task("ioi", mini.tokenizer, seed=0).test.take(slice(4))
    kl = mg.evaluate(mini, ranked.at(keep=0.2), data)["kl"]
    assert [row["keep"] for row in curve][-1] == 1 and len(curve) == 10
    assert curve[7]["keep"] == 0.2 and curve[7]["kl"] == pytest.approx(kl, rel=1e-4)


def test_a_curve_of_a_comparison_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["method", "seed", "keep", "prunable_kept", "edge_sparsity", "kl", "score"]
    rows = [["mine", 0, 0.1, 0.2, 90, 0.5, 1], ["mine", 1, 0.1, 0.3, 90, 0.5, 1]]
    file = run.parent / "curves.csv"
    write_csv(file, [*columns, "accuracy"], [[*row, None] for row in rows])
    (row,) = curve_beside(run, {"method": "mine", "seed": 0})
    assert row["prunable_kept"] == 0.2 and np.isnan(row["accuracy"])
    assert curve_beside(run, {"method": "other", "seed": 0}) == []
    # The comparison's own page stays.
    assert call_here(COMMAND, "--runs", run.parent) == 2
    assert "is the page of a comparison; pass another --out" in capsys.readouterr().err
    assert call_here(COMMAND, "--runs", run.parent, "--out", run.parent / "runs.html") == 0
    write_csv(file, columns, [["mine", 0, "x", 0, 0, 0, 0]])
    with pytest.raises(mg.MgnpError, match="has a row without the numbers keep"):
        curve_beside(run, {"method": "mine", "seed": 0})


def test_what_mib_wrote_has_a_page(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = edges_of(mini)
    file = tmp_path / "theirs.json"
    mg.export_mib(circuit, mini.config, file)
    assert call_here(COMMAND, "--circuit", file) == 2
    assert "does not say of which model it is; pass --model" in capsys.readouterr().err
    assert call_here(COMMAND, "--circuit", file, "--model", "gpt2-mini") == 0
    found = content(tmp_path / "theirs.html")
    kept = {f"{writer}->{reader}" for writer, reader, kept, *_ in found["edges"] if kept}
    assert found["level"] == "edge" and kept == set(mg.edge_names(mini.config, circuit.masks))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "pass one of --circuit DIR and --runs DIR"),
        ({"circuit": Path("a"), "runs": Path("b")}, "pass one of"),
        ({"runs": Path("b"), "model": "m"}, "go with --circuit alone"),
        ({"circuit": Path("a"), "curve_prompts": -1}, "must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        ShowConfig(**options)


def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.html").write_text("<h1>My thesis</h1>")
    for asked, message in (
        (("--circuit", tmp_path / "no"), "no is not a folder"),
        (("--runs", tmp_path / "no"), "--runs wants a folder"),
        (("--runs", run), "there is no run in"),
        (("--runs", tmp_path), "was not made by this command"),
        (("--circuit", run, "--out", tmp_path), "was not made by this command"),
        (("--runs", run.parent, "--out", tmp_path / "x.html"), "pass an --out in it"),
        (("--circuit", run, "--out", tmp_path / "no" / "x.html"), "the page cannot be written"),
        (("--circuit", run, "--compare", tmp_path / "no"), "no is not a folder"),
    ):
        assert call_here(COMMAND, *asked) == 2
        printed = capsys.readouterr().err
        assert message in printed and printed.startswith("error: "), printed
