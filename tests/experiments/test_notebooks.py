"""The notebooks run from top to bottom, cut short, and show what they say they do."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import mgnp_jax as mg

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"

SHORT = {"steps=200": "steps=2", "steps=150": "steps=2", "prompts=32": "prompts=2"} | {
    "slice(500)": "slice(8)",
    "slice(100)": "slice(8)",
    'along="activations")': 'along="activations", ig_steps=2)',
}
"""What is said in a notebook → what is run here."""


def code_of(name: str) -> str:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] for cell in cells), "kept without outputs"
    return "\n".join("".join(cell["source"]) for cell in cells)


def ran(name: str, folder: Path) -> dict[str, Any]:
    code = code_of(name)
    for long, short in SHORT.items():
        code = code.replace(long, short)
    found: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(code, name, "exec"), found)
    return found


def test_every_notebook_has_a_test() -> None:
    names = {file.stem for file in FOLDER.glob("*.ipynb")}
    assert names == {"first-circuit", "own-prompts", "compare-methods"}
    shortened = "".join(map(code_of, names))
    assert all(long in shortened for long in SHORT)


def test_the_first_circuit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ran("first-circuit", tmp_path)
    printed = capsys.readouterr().out
    assert len(re.findall(r"% of the parameters: KL \d", printed)) == 3
    assert re.search(r"a\d\.h\d: [+-]\d", printed)
    loaded = mg.load_circuit(tmp_path / "runs" / "first")
    assert loaded._repr_html_() == found["circuit"]._repr_html_()
    assert mg.load_evidence(tmp_path / "runs" / "first").prompts_used == 2


def test_own_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ran("own-prompts", tmp_path)
    # Pairs of one clean prompt go together.
    cleans = {pair.clean for pair in found["pairs"]}
    assert sum(found["data"].counts().values()) == len(cleans) > 20
    printed = capsys.readouterr().out
    assert "token" in printed and "'kl'" in printed


def test_methods_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    found = ran("compare-methods", tmp_path)
    assert set(found["curves"]) == {"nap-ig", "magnitude"}
    for kl in found["curves"].values():
        assert len(kl) == len(found["sizes"]) and kl[0] > kl[-1] >= 0
