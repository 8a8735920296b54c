"""Circuits to and from files of EAP-IG and MIB by command, and measured then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import edge_count, existing
from tests.experiments.test_commands import call, call_here
from tests.masks.test_edges import some_nodes


def edges_of(mini: mg.Model) -> mg.Circuit:
    """A circuit of edges with a ranking, as if it had been found."""
    rng = np.random.default_rng(0)
    there = existing(mini.config)
    drawn = {n: rng.standard_normal(e.shape).astype(np.float32) for n, e in there.items()}
    scores = {n: np.where(e, drawn[n], np.float32(-np.inf)) for n, e in there.items()}
    circuit = mg.Circuit(
        masks=jax.device_put(there),
        scores=jax.device_put(scores),
        metadata={"model": "gpt2-mini", "task": "ioi", "method": "mine"},
    )
    return circuit.at(keep=0.4)


def test_there_and_back_and_measured(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = edges_of(mini)
    circuit.save(tmp_path / "mine")
    count = edge_count(circuit.masks)
    asked = ("--to-mib", tmp_path / "c.json", "--submission", tmp_path / "nine")
    assert call_here("experiments.convert", "--circuit", tmp_path / "mine", *asked) == 0
    printed = capsys.readouterr().out
    assert f"c.json: {count:,} edges" in printed and "nine: 9 circuits of " in printed
    assert "neurons" not in printed
    page = (tmp_path / "nine" / "README.md").read_text()
    assert "ranking of edges (task ioi, model gpt2-mini, method mine)" in page
    out = tmp_path / "new" / "theirs"
    asked = ("--from-mib", tmp_path / "c.json", "--model", "gpt2-mini")
    assert call_here("experiments.convert", *asked, "--task", "gp", "--seed", 3, "--out", out) == 0
    assert f"theirs: {count:,} edges, with a ranking" in capsys.readouterr().out
    again = mg.load_circuit(out)
    for name, mask in circuit.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)
    assert again.metadata["origin"] == {"source": "gp", "seed": 3}
    # On its own task, which the file does not say, and on another.
    few = ("--test-prompts", 8)
    assert call_here("experiments.evaluate", "--circuit", out, *few) == 0
    assert "gp on gpt2-mini; measured on 8 test prompts" in capsys.readouterr().out
    assert call_here("experiments.evaluate", "--circuit", out, "--task", "ioi", *few) == 0
    printed = capsys.readouterr().out
    data = mg.load_task("ioi", mini.tokenizer, seed=3)
    kl = mg.evaluate(mini, circuit, data.test.take(slice(8)))["kl"]
    assert kl > 1e-3 and f"{kl:.6f}" in printed


def test_scores_alone_are_a_circuit_of_the_size_that_is_asked_for(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = edges_of(mini)
    none = {name: mask & False for name, mask in circuit.masks.items()}
    file = tmp_path / "scores.json"
    mg.export_mib(dataclasses.replace(circuit, masks=none), mini.config, file)
    asked: tuple[Any, ...] = ("--from-mib", file, "--model", "gpt2-mini", "--out", tmp_path / "c")
    assert call_here("experiments.convert", *asked) == 2
    assert "scores.json is in its circuit; pass a larger --keep" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    assert call_here("experiments.convert", *asked, "--keep", 0.2) == 0
    found = mg.load_circuit(tmp_path / "c").masks
    wanted = circuit.at(keep=0.2).masks
    assert edge_count(wanted) > 100
    for name, mask in wanted.items():
        np.testing.assert_array_equal(found[name], mask)
    asked = (*asked[:-1], tmp_path / "d")
    assert call_here("experiments.convert", *asked, "--keep", 0.2, "--absolute") == 0
    found = mg.load_circuit(tmp_path / "d")
    assert found.metadata["absolute"] and edge_count(found.masks) > 100
    assert any((found.masks[name] != wanted[name]).any() for name in wanted)


def test_what_a_file_cannot_say_is_said(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = some_nodes(mini.config)
    mg.Circuit(masks=nodes, metadata={}).save(tmp_path / "whole")
    asked = ("--model", "gpt2-mini", "--to-mib")
    command = ("experiments.convert", "--circuit")
    assert call_here(*command, tmp_path / "whole", *asked, tmp_path / "a.json") == 0
    assert "neurons" not in capsys.readouterr().out
    layer = int(np.argmax(nodes["mlp_blocks"]))
    part = {**nodes, "mlp_hidden": nodes["mlp_hidden"].at[layer, :7].set(False)}
    mg.Circuit(masks=part, metadata={}).save(tmp_path / "part")
    assert call_here(*command, tmp_path / "part", *asked, tmp_path / "b.json") == 0
    assert "It leaves out 7 neurons of the nodes that it keeps" in capsys.readouterr().out
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass one of --circuit DIR and --from-mib FILE"),
        (["--circuit", "c", "--from-mib", "f.json"], "pass one of --circuit DIR and"),
        (["--circuit", "c"], "pass --to-mib FILE or --submission DIR, or both, with --circuit"),
        (["--circuit", "c", "--out", "o"], "--out goes with --from-mib alone"),
        (["--from-mib", "f.json", "--to-mib", "g.json"], "--to-mib goes with --circuit alone"),
        (["--from-mib", "f.json", "--out", "o"], "pass --model NAME and --out DIR with --from-mib"),
        (["--circuit", "no", "--to-mib", "f.json"], "no is not a folder"),
        (
            ["--from-mib", "f.json", "--model", "gpt2-mini", "--out", "o", "--seed", "1"],
            "--seed goes with --task alone",
        ),
        (
            ["--from-mib", "f.json", "--model", "gpt2-mini", "--out", "o", "--task", "docs"],
            "unknown task 'docs'",
        ),
        (
            ["--from-mib", "f.json", "--model", "gpt2-mini", "--out", "o"],
            "f.json cannot be read: ",
        ),
        (
            ["--from-mib", "c.json", "--model", "gpt2-mini", "--out", "taken"],
            "taken is not an empty folder",
        ),
    ],
)
def test_mistakes_end_in_one_line(
    mini: mg.Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    mg.export_mib(
        mg.Circuit(masks=some_nodes(mini.config), metadata={}), mini.config, tmp_path / "c.json"
    )
    assert call_here("experiments.convert", *arguments, cwd=tmp_path) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.replace("│", " ").split())
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "c.json"}


def test_a_damaged_file_ends_in_one_line_and_help_is_shown(
    mini: mg.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    mg.export_mib(mg.Circuit(masks=some_nodes(mini.config), metadata={}), mini.config, file)
    file.write_text(file.read_text()[:-40])
    done = call("experiments.convert", "--from-mib", file, "--model", "gpt2-mini", "--out", "o")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {file} is not JSON")
    assert "Traceback" not in done.stderr
    assert call_here("experiments.convert", "--help") == 0
    assert "usage: python -m experiments.convert [" in capsys.readouterr().out
