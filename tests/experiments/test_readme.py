"""Every command and every line of Python in README.md runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.flags import parsed
from mgnp_jax.runs.joining import Joining
from tests.experiments.test_commands import ROOT, call, call_here
from tests.models.test_smollm2 import real

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    command.strip()
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    for command in line.split("&&")
]
FEW = ["--test-prompts", "8", "--validation-prompts", "8"]
SHORT = {
    "run": [*("--steps", "2"), *FEW],
    "evaluate": FEW[:2],
    "magnitude": FEW[:2],
    "paper": [*("--tasks", "gp", "--seeds", "1", "--steps", "2"), *FEW],
    "decoys": [*("--steps", "2"), *FEW],
    "convert": [],
    "show": ["--curve-prompts", "0", "--evidence-prompts", "0"],
    "compare": [
        *("--methods", "random", "--reference", "magnitude", "--seeds", "1"),
        *(*FEW[:2], "--curve-prompts", "4"),
    ],
}


def test_readme_begins_with_install_and_run_then_test() -> None:
    assert COMMANDS[:4] == [
        "pip install .",
        "python -m experiments.run --task ioi",
        "pip install '.[dev]'",
        "pytest",
    ]


@pytest.mark.slow
def test_module_commands_run_in_order(tmp_path: Path) -> None:
    ran: list[str] = []
    for command in COMMANDS:
        words = shlex.split(command)
        if words[:2] != ["python", "-m"]:
            continue
        arguments = words[2:]
        # These have tests of their own.
        if {"smollm2-135m", "--distributed", "experiments.benchmark"} & {*arguments}:
            continue
        name = arguments[0].removeprefix("experiments.")
        name = "magnitude" if "magnitude" in arguments else name
        # The last of two flags counts, so the run is cut short.
        assert call_here(*arguments, *SHORT[name], cwd=tmp_path) == 0, command
        ran.append(name)
    first, files = ["run", "run", "evaluate", "magnitude"], ["convert", "convert", "evaluate"]
    assert ran == [*first, "paper", "decoys", "compare", "show", "show", *files, "convert"]


@pytest.mark.parametrize("stage", [pytest.param("", marks=real)])
def test_the_smollm2_command_runs(tmp_path: Path, stage: str) -> None:
    (command,) = [c for c in COMMANDS if "smollm2-135m" in c and "--distributed" not in c]
    short = ("--steps", 1, "--cache", "batch", "--batch-size", 4, "--validation-prompts", 4)
    short += ("--train-prompts", 8, "--test-prompts", 8, "--out", tmp_path / "run")
    done = call(*shlex.split(command)[2:], *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["task"], results["model"]) == ("ioi", "smollm2-135m")


def test_the_commands_of_several_processes_differ_in_their_index() -> None:
    found = [shlex.split(c) for c in COMMANDS if "--distributed" in c and "srun" not in c]
    (address,) = {words[words.index("--coordinator") + 1] for words in found}
    for index, words in enumerate(found):
        assert words[:3] == ["python", "-m", "experiments.run"]
        config, joining = parsed(RunConfig, words[3:], prog="run", distributed=True)
        assert config == RunConfig(task="ioi")
        wanted = {"coordinator": address, "processes": len(found), "process": index}
        assert joining == Joining(distributed=True, **wanted)
    (line,) = [shlex.split(c) for c in COMMANDS if "srun" in c]
    assert line[:4] == ["srun", *found[0][:3]]
    _, joining = parsed(RunConfig, line[4:], prog="run", distributed=True)
    assert joining == Joining(distributed=True)


def test_installs_name_what_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in COMMANDS:
        if not command.startswith("pip install"):
            continue
        for extra in re.findall(r"\[(\w+)\]", command):
            assert extra in project["optional-dependencies"]
        for file in re.findall(r"-r (\S+)", command):
            assert (ROOT / file).exists()
    for extra in re.findall(r"\.\[(\w+)\]", README):
        assert extra in project["optional-dependencies"]
    # The CUDA build has the bounds of the CPU build.
    (bound,) = [d.removeprefix("jax") for d in project["dependencies"] if d.startswith("jax>")]
    assert f"jax[cuda12]{bound}" in (ROOT / "requirements-cuda.txt").read_text()


EXAMPLES = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What README's Python defines, run in its order; circuits are cut short."""
    found: dict[str, Any] = {}
    whole = "".join(EXAMPLES)
    short = whole.replace("steps=100", "steps=2").replace("data.test)", "data.test.take(range(8)))")
    assert short != whole
    tables = (mg.METHODS, mg.TASKS, mg.METRICS, mg.FAMILIES)
    before = [dict(table) for table in tables]  # type: ignore[call-overload]
    with contextlib.chdir(tmp_path_factory.mktemp("readme")):
        exec(compile(short, "README.md", "exec"), found)
    yield found
    for table, old in zip(tables, before):
        table.clear()
        table.update(old)  # type: ignore[arg-type]


def test_the_python_runs(names: dict[str, Any]) -> None:
    assert names["logits"].shape[0] == 8
    assert names["mine"].counts() == {"train": 1, "validation": 1, "test": 1}
    assert len(names["mine"].train) == 2


def test_each_addition_is_a_few_lines() -> None:
    for kind in ("METHODS", "TASKS", "METRICS", "FAMILIES"):
        (example,) = [text for text in EXAMPLES if f"mg.{kind}[" in text]
        lines = [line for line in example.splitlines() if line.strip()]
        assert len(lines) <= 15, kind


def test_what_is_added_runs_through_the_same_commands(
    names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = ("--task", "boxes", "--method", "first-heads", "--heads", 3)
    assert call_here("experiments.run", *added, "--out", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["task"], results["method"]) == ("boxes", "first-heads")
    assert results["sizes"]["attention_heads"]["active"] == 4 * 3
    # A rank: whole, and at best nothing comes before the right answer.
    assert results["base"]["score"] <= 0 and results["base"]["accuracy"] > 0.5
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"] == {"heads": 3}
    capsys.readouterr()
    assert call_here("experiments.evaluate", "--circuit", tmp_path / "run") == 0
    assert "Saved" in capsys.readouterr().out
    few = ("--seeds", 1, "--method", "first-heads", "--out", tmp_path / "paper")
    assert call_here("experiments.paper", "--tasks", "boxes", *few) == 0
    assert "boxes, seed 0, by layer" in (tmp_path / "paper" / "tables.md").read_text()


def test_an_added_family_gives_torchs_logits(names: dict[str, Any], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    config = transformers.SeedOssConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    theirs = transformers.SeedOssForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    model = mg.load_model(str(tmp_path))
    assert model.family is names["SEED_OSS"]
    tokens = np.arange(10)[None] * 5
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    assert wanted.std() > 0.1
    np.testing.assert_allclose(mg.forward(model.config, model.params, tokens), wanted, atol=1e-4)
    mg.save_model(model, tmp_path / "again")
    assert mg.load_model(str(tmp_path / "again")).config == model.config


def test_the_documented_data_line_is_accepted(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(\{\"clean\".*?\})`", README)
    texts = iter(
        json.dumps(f"Then {a} and {b} spent the day at the park, and {b} gave a book to")
        for a, b in itertools.permutations(("Mary", "John", "Emma"), 2)
    )
    rows = [re.sub("…", lambda _: next(texts), line) for _ in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    tokenizer = mg.load_model("gpt2-mini").tokenizer
    assert sum(mg.load_task(tmp_path / "mine.jsonl", tokenizer).counts().values()) == 3


def test_the_command_that_trains_the_embedded_model_runs(tmp_path: Path) -> None:
    (command,) = re.findall(r"`python -m (experiments.train_mini --out) DIR`", README)
    short = ("--steps", 2, "--batch-size", 4)
    assert call_here(*command.split(), tmp_path / "mini", *short) == 0
    again = mg.load_model(str(tmp_path / "mini"))
    assert again.config == mg.load_model("gpt2-mini").config
