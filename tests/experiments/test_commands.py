"""The commands, end to end, in processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import experiments
import mgnp_jax as mg
from mgnp_jax.report.progress import TrainingProgress
from tests.experiments.processes import few_pairs

ROOT = Path(__file__).parents[2]


def call(
    *arguments: object,
    cwd: Path = ROOT,
    without: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m ARGUMENTS`, with and without some variables; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"} | dict(variables or {})
    for name in without:
        environment.pop(name, None)
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def call_here(*arguments: object, cwd: Path = ROOT) -> int:
    """Runs `python -m ARGUMENTS` in this process, which has imported everything already.

    Returns:
      The exit status; what was printed is pytest's to capture.
    """
    module, *rest = map(str, arguments)
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", [module, *rest]),
        mock.patch.dict(os.environ, COLUMNS="120"),
    ):
        # Tests may have imported it, but here it is the main module, made anew.
        imported = sys.modules.pop(module, None)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return end.code
        finally:
            if imported is not None:
                sys.modules[module] = imported
    return 0


PRUNING = (
    *("--validate-every", 3, "--log-every", 2, "--validation-prompts", 40),
    # Six steps that close something.
    *("--learning-rate", 2.0, "--keep", 0.3, "--warmup", 0),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "ioi"
    done = call(
        "experiments.run",
        *("--task", "ioi", "--out", out, "--steps", 6, "--test-prompts", 40, "--seed", 3),
        *PRUNING,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "ioi on gpt2-mini by node-pruning",
        "Attention heads",
        "Accuracy, training",
        "40 test prompts",
        "Saved to",
    ):
        assert words in done.stdout
    return out


def test_a_run_leaves_the_folder_that_was_promised(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    assert names == {
        "circuit",
        "results.json",
        "metrics.jsonl",
        "config.json",
        "curve.csv",
        "curve.png",
        "heads.png",
        "neurons.png",
        "index.html",
        "README.md",
    }
    results = json.loads((run_folder / "results.json").read_text())
    assert results["prefix"] == ""
    assert (results["task"], results["model"], results["seed"]) == ("ioi", "gpt2-mini", 3)
    assert results["data"] == {"train": 200, "validation": 200, "test": 12_256, "left_out": 0}
    assert set(results["base"]) >= {"score", "accuracy"}
    assert set(results["circuit"]) >= {"score", "accuracy", "kl", "exact_match"}
    assert set(results["sizes"]) == set(mg.GRANULARITIES)
    assert 0 < results["parameters"]["prunable_kept"] < 0.9 and results["circuit"]["kl"] > 1e-3
    for size in (*results["sizes"].values(), results["edges"]):
        assert size["sparsity"] == pytest.approx(100 * (1 - size["active"] / size["total"]))
    parameters = {"total", "active", "compression_ratio", "prunable_kept"}
    assert set(results["parameters"]) == parameters
    model = mg.load_model("gpt2-mini")
    assert results["training"]["gates"] == mg.gate_count(model.config)
    assert results["training"]["steps"] == 6 and results["training"]["seconds"] > 0
    assert results["warnings"] == []
    environment = mg.load_circuit(run_folder).metadata["environment"]
    assert results["environment"] == environment and environment["versions"]["jax"]
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in lines if "loss" in r] == [1, 3, 5, 6]
    # The last is of the size that was asked for.
    assert [r["step"] for r in lines if "validation" in r] == [3, 6, 6]
    config = json.loads((run_folder / "config.json").read_text())
    assert config["config"]["steps"] == 6 and config["method"] == "node-pruning"
    for picture in ("heads.png", "neurons.png"):
        assert (run_folder / picture).read_bytes().startswith(b"\x89PNG")


def test_a_saved_circuit_measures_the_same_in_a_new_process(run_folder: Path) -> None:
    done = call("experiments.evaluate", "--circuit", run_folder)
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.count("│") == 4]
    table = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    results = json.loads((run_folder / "results.json").read_text())
    for name in ("score", "accuracy", "kl", "exact_match"):
        measured, saved = table[name]
        assert measured == saved == f"{results['circuit'][name]:.6f}", name


def test_a_circuit_is_measured_on_another_task_and_on_a_file(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_here("experiments.evaluate", "--circuit", run_folder, "--task", "gp") == 0
    assert "of gp on gpt2-mini" in capsys.readouterr().out
    rows = [
        {
            "clean": f"Then {a} and Paul spent the day at the park, and Paul gave a book to",
            "corrupted": f"Then {b} and Lisa spent the day at the park, and Anna gave a book to",
            "answers": [f" {a}"],
            "wrong_answers": [" Paul"],
        }
        for a, b in (("Mary", "John"), ("John", "Mary"), ("Emma", "Mark"), ("Mark", "Emma"))
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert call_here("experiments.evaluate", "--circuit", run_folder, "--data", file) == 0
    printed = capsys.readouterr().out
    assert "4 test prompts of mine" in printed and "only 4 test prompts: a" in printed
    assert "Nothing is put before prompts, as when the circuit was found" in printed
    asked = ("--data", file, "--prefix", "Then", "--test-prompts", 3)
    assert call_here("experiments.evaluate", "--circuit", run_folder, *asked) == 0
    printed = capsys.readouterr().out
    assert "3 test prompts of mine" in printed and "Prompts begin with 'Then' (id " in printed
    assert "found on prompts that begin with nothing" in printed
    asked = ("--data", file, "--prefix", "moon")
    assert call_here("experiments.evaluate", "--circuit", run_folder, *asked) == 2
    assert "the prefix 'moon' has words that" in capsys.readouterr().err


def test_a_file_is_measured_again_as_the_run_had_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Mary", "John", "Emma", "Mark", "Lisa")
    rows = [
        {
            "clean": f"Then {a} and Paul spent the day at the park, and Paul gave a book to",
            "corrupted": [
                f"Then {c} and Anna spent the day at the park, and Anna gave a book to"
                for c in names
                if c != a
            ],
            "answers": [f" {a}"],
            "wrong_answers": [" Paul", " Anna"],
        }
        for a in names
    ]
    file, out = tmp_path / "mine.jsonl", tmp_path / "run"
    file.write_text("\n".join(["{", *map(json.dumps, rows)]))
    asked = ("--data", file, "--skip-bad", "--metric", "best_difference", "--out", out)
    asked += ("--prefix", "Then")
    assert call_here("experiments.run", *asked, "--method", "magnitude", "--keep", 0.9) == 0
    results = json.loads((out / "results.json").read_text())
    left_out = {"left_out": 1, "left_out_because": {"not JSON": 1}}
    assert results["data"] == {"train": 2, "validation": 1, "test": 2, **left_out}
    assert results["prefix"] == mg.load_circuit(out).metadata["origin"]["prefix"] == "Then"
    assert "Left out 1 pair (`left-out.txt`):\n\n- 1: not JSON" in (out / "README.md").read_text()
    assert (out / "left-out.txt").read_text().startswith("mine.jsonl:1: not JSON")
    assert results["circuit"]["prompts"] == 2 * 4
    printed = capsys.readouterr().out
    assert "Prompts begin with 'Then' (id " in printed and "mine.jsonl:1: not JSON" in printed
    # As the run had them, though the flags are not given again: its own test split and prefix.
    copy = tmp_path / "copies" / "theirs.jsonl"
    copy.parent.mkdir()
    shutil.copy(file, copy)
    for again in ((), ("--data", file), ("--data", copy)):
        assert call_here("experiments.evaluate", "--circuit", out, *again) == 0
        printed = capsys.readouterr().out
        assert "Saved" in printed and "Prompts begin with 'Then' (id " in printed
        # A copy has a name of its own.
        others = " of theirs on" if copy in again else " Prompts"
        assert f"measured on 8 test prompts{others}" in " ".join(printed.split())
    # By another metric there is nothing to compare with.
    again = ("--data", file, "--metric", "logit_difference")
    assert call_here("experiments.evaluate", "--circuit", out, *again) == 0
    printed = capsys.readouterr().out
    assert "Saved" not in printed and "Other prompts, weights or metric" in printed
    copy.write_text("\n".join(map(json.dumps, rows[::-1])))
    assert call_here("experiments.evaluate", "--circuit", out, "--data", copy) == 0
    assert "measured on 20 test prompts of theirs" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("own", [False, True])
def test_a_run_on_fewer_prompts_is_measured_again_on_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    out, file = tmp_path / "run", tmp_path / "mine.jsonl"
    few = ("--method", "magnitude", "--test-prompts", 2, "--control-prompts", 2, "--out", out)
    asked: tuple[object, ...] = ("--task", "gp", "--train-prompts", 40)
    if own:
        asked = ("--data", few_pairs(tmp_path).rename(file), "--train-prompts", 2)
    assert call_here("experiments.run", *asked, *few) == 0
    circuit = mg.load_circuit(out)
    origin = circuit.metadata["origin"]
    assert origin["train_prompts"] == circuit.metadata["data"]["train"] == asked[-1]
    assert call_here("experiments.run", *asked[:2], *few, "--resume") == 2
    assert "was run with another train_prompts" in capsys.readouterr().err
    copy = tmp_path / "copy.jsonl"
    if own:
        shutil.copy(file, copy)
    for again in ((), *((("--data", copy),) if own else ())):
        assert call_here("experiments.evaluate", "--circuit", out, *again) == 0
        # Which it shows beside figures of the same prompts alone.
        assert "Saved" in capsys.readouterr().out
    # Other tasks may not have as many, and none of theirs are trained on.
    metadata = circuit.metadata | {"origin": origin | {"train_prompts": 90_000}}
    more = ("--circuit", tmp_path / "more")
    mg.Circuit(masks=circuit.masks, metadata=metadata).save(more[-1])
    assert call_here("experiments.evaluate", *more, "--task", "capital") == 0
    assert call_here("experiments.evaluate", *more) == 2
    assert "got --train-prompts 90,000; " in capsys.readouterr().err


def test_what_a_circuit_does_not_say_is_no_mistake(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = mg.load_circuit(run_folder)
    unsaid = {"origin": None, "figures": None, "test_prompts": None, "task": None}
    dataclasses.replace(circuit, metadata=circuit.metadata | unsaid).save(tmp_path / "a")
    asked = ("--circuit", tmp_path / "a", "--test-prompts", 4)
    assert call_here("experiments.evaluate", *asked) == 2
    assert "does not say on which prompts it was found" in capsys.readouterr().err
    assert call_here("experiments.evaluate", *asked, "--task", "gp") == 0
    origin = dict.fromkeys(circuit.metadata["origin"]) | {"source": "gp"}
    dataclasses.replace(circuit, metadata=circuit.metadata | {"origin": origin}).save(
        tmp_path / "b"
    )
    asked = ("--circuit", tmp_path / "b", "--test-prompts", 4)
    assert call_here("experiments.evaluate", *asked) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "proverb"], "unknown task 'proverb': wanted one of ioi, gt, gp"),
        (["--task", "ioi", "--model", "no such!"], "unknown model 'no such!'"),
        ([], "pass one of --task"),
        (["--task", "ioi", "--data", "x.jsonl"], "not both"),
        (["--data", "missing.jsonl"], "wanted a JSON Lines file, and there is no such file"),
        (["--task", "ioi", "--metric", "luck"], "metric must be one of logit_difference"),
        (["--task", "ioi", "--method", "random", "--like", "no"], "there is no no"),
        (["--data", "."], "that is a folder"),
        (["--task", "ioi", "--train-prompts", "0"], "--train-prompts must be at least 1, got 0"),
        (["--task", "ioi", "--steps", "0"], "steps must be greater than 0, got 0"),
    ],
    ids=["task", "model", "neither", "both", "file", "metric", "like", "folder", "train", "steps"],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call_here("experiments.run", *arguments, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = call("experiments.run", "--task", "ioi", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert "is not an empty folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_without_a_circuit_is_said(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_here("experiments.evaluate", "--circuit", tmp_path) == 2
    assert f"{tmp_path} holds no circuit; wanted" in capsys.readouterr().err
    shutil.copy(run_folder / "config.json", tmp_path)
    assert call_here("experiments.evaluate", "--circuit", tmp_path) == 2
    assert "a run that is not done and has no circuit yet" in capsys.readouterr().err
    shutil.copy(run_folder / "results.json", tmp_path)
    assert call_here("experiments.evaluate", "--circuit", tmp_path) == 2
    assert "holds no circuit" in capsys.readouterr().err


def test_ctrl_c_just_ends_a_command_that_still_imports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        importlib.reload(experiments)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(sys, "argv", ["-m"])
        # Or this process would begin again, to ask for huge pages.
        monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
        importlib.reload(experiments)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert call_here("experiments.run", "--help") == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("module", ["run", "train_mini"])
def test_help_names_the_command_that_can_be_called(
    capsys: pytest.CaptureFixture[str], module: str
) -> None:
    assert call_here(f"experiments.{module}", "--help") == 0
    assert f"usage: python -m experiments.{module} [" in capsys.readouterr().out


def test_no_model_is_trained_for_a_folder_that_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.txt"
    file.touch()
    for out in (file, tmp_path):
        assert call_here("experiments.train_mini", "--steps", 1, "--out", out) == 2
        assert f"--out {out} is not an empty folder" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [file]


def test_a_circuit_on_a_model_it_does_not_fit_is_refused(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests import tiny

    model = mg.load_model("gpt2-mini")
    other = tiny.model("gpt2")
    config = dataclasses.replace(other.config, vocab_size=model.config.vocab_size, context=64)
    params = tiny.lively_params(config)
    named = mg.Model(name="x", config=config, params=params, tokenizer=model.tokenizer)
    mg.save_model(named, tmp_path / "other")
    other = tmp_path / "other"
    assert call_here("experiments.evaluate", "--circuit", run_folder, "--model", other) == 2
    assert "(4, 8), the model wants (3, 4)" in capsys.readouterr().err


def test_the_compile_pipeline_of_users_gives_the_same_figures(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All other tests are without most of XLA's optimisations, which users have.
    hidden = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    out = tmp_path / "run"
    done = call(
        "experiments.run",
        *("--task", "ioi", "--out", out, "--steps", 6, "--test-prompts", 40, "--seed", 3),
        *PRUNING,
        without=hidden,
    )
    assert done.returncode == 0, done.stderr
    logs = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (out, run_folder)
    ]
    steps = [[record for record in log if "loss" in record] for log in logs]
    # The first step differs by rounding alone; after it a gate or two may have gone another way.
    assert steps[0][0]["loss"] == pytest.approx(steps[1][0]["loss"], rel=1e-4)
    for ours, theirs in zip(*steps, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)
        assert ours["kept"] == pytest.approx(theirs["kept"], abs=0.02)
    results = [json.loads((folder / "results.json").read_text()) for folder in (out, run_folder)]
    kept = [result["parameters"]["prunable_kept"] for result in results]
    assert kept[0] == pytest.approx(kept[1], abs=0.05) and max(kept) < 0.9


def test_a_stopped_run_keeps_its_best_circuit_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = TrainingProgress.__call__

    def stop(self: TrainingProgress, record: dict[str, Any]) -> None:
        shown(self, record)
        if record.get("step", 0) > 3 and "loss" in record:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TrainingProgress, "__call__", stop)
    monkeypatch.chdir(tmp_path)
    short = ("--steps", 6, "--validate-every", 3, "--log-every", 1, "--validation-prompts", 8)
    few = ("--task", "ioi", *short, "--test-prompts", 8, "--control-prompts", 8)
    assert call_here("experiments.run", *few, cwd=tmp_path) == 130
    printed = capsys.readouterr().err
    out = "runs/ioi-gpt2-mini-seed0"
    command = " ".join(map(str, ("python -m experiments.run", *few, "--out", out, "--resume")))
    assert "the state of step 4 is kept, the best circuit so far, not measured" in printed
    assert command in printed
    best = mg.load_circuit(tmp_path / out).metadata
    assert best["training"]["interrupted"] and best["validation"]["step"] == 3
    monkeypatch.setattr(TrainingProgress, "__call__", shown)
    # By default the latest of that name.
    assert call_here("experiments.run", *few, "--resume", cwd=tmp_path) == 0
    printed = capsys.readouterr().out
    assert "Going on after step 4" in printed
    # Six steps close nothing.
    assert "Hardly anything is pruned, so this is the model" in printed
    results = json.loads((tmp_path / out / "results.json").read_text())
    assert not results["training"]["interrupted"] and results["training"]["steps"] == 6
    assert call_here("experiments.run", *few, "--resume", cwd=tmp_path) == 0
    assert "is done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_help_is_shown_in_any_encoding(variables: dict[str, str]) -> None:
    # What it prints is read here as text, of which bytes of another encoding are none.
    done = call("experiments.run", "--help", variables=variables)
    assert done.returncode == 0 and not done.stderr
    assert "--task" in done.stdout


def test_a_run_prints_where_little_can_be_shown_and_names_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "[red]a|b ‖\x1b[31m"
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    few = ("--test-prompts", 8, "--control-prompts", 4, "--out", out)
    assert call_here("experiments.run", "--task", "gp", "--method", "magnitude", *few) == 0
    printed = written.getvalue().decode("ascii")
    assert "KL(model ? circuit)" in printed
    assert "[red]a|b ?\\x1b[31m" in "".join(printed.split("\n"))
    assert (out / "results.json").exists()


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m experiments.run --help | head -1"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.startswith("usage:") and not done.stderr


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    few = ("--method", "magnitude", "--test-prompts", 8, "--out", out)
    done = call("experiments.run", "--task", "ioi", *few, variables={"JAX_PLATFORMS": name})
    if name == "cuda" and done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2 and not out.exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: JAX does not start with JAX_PLATFORMS={name}: ")


def test_a_variable_that_jax_cannot_read_is_one_line() -> None:
    done = call("experiments.run", "--help", variables={"JAX_ENABLE_X64": "perhaps"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: JAX does not start: ") and "JAX_ENABLE_X64" in line


def test_names_that_are_no_text_end_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"caf\xe9")
    for arguments in (
        ("--task", odd),
        ("--data", odd),
        ("--task", "ioi", "--model", odd),
        ("--task", "ioi", "--out", tmp_path / odd),
    ):
        assert call_here("experiments.run", *arguments) == 2
        printed = capfd.readouterr().err
        assert printed.startswith("error: ") and "caf\\udce9" in printed, printed
    assert list(tmp_path.iterdir()) == []


def test_what_makes_a_circuit_mean_nothing_is_said_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swapped(rng: np.random.Generator, tokenizer: Any) -> Iterator[mg.PromptPair]:
        while True:
            a, b, c = rng.choice(["Mary", "John", "Emma", "Paul", "Lisa"], 3, replace=False)
            yield mg.PromptPair(
                clean=f"Then {a} and {b} spent the day at the park, and {b} gave a book to",
                corrupted=f"Then {c} and {b} spent the day at the park, and {b} gave a book to",
                answers=[f" {b}"],
                wrong_answers=[f" {a}"],
            )

    counts = mg.Counts(train=4, validation=8, test=8)
    monkeypatch.setitem(mg.TASKS, "swapped", mg.Task(name="swapped", counts=counts, pairs=swapped))
    model = mg.load_model("gpt2-mini")
    noted = dataclasses.replace(model, notes=("Its head is [bold]tied[/bold].",))
    monkeypatch.setattr("mgnp_jax.runs.loading.load_model", lambda name, **placed: noted)
    out = tmp_path / "run"
    asked = ("--task", "swapped", "--method", "magnitude", "--keep", 1, "--out", out)
    assert call_here("experiments.run", *asked) == 0
    printed = " ".join(capsys.readouterr().out.split())
    results = json.loads((out / "results.json").read_text())
    few, answers, kept = results["warnings"]
    assert "only 4 training prompts and 8 validation prompts and 8 test prompts:" in few
    assert "answers 0 of 8 prompts rightly" in answers and "may be swapped" in answers
    assert kept.startswith("Hardly anything is pruned")
    page = (out / "README.md").read_text()
    for text in (few, answers, kept):
        assert f"Warning: {text}" in printed and f"**Warning:** {text}" in page
    assert mg.load_circuit(out).metadata["warnings"] == [few, answers, kept]
    # Before the search, and what is printed is not markup.
    assert printed.index("may be swapped") < printed.index("Circuit size")
    assert "Its head is [bold]tied[/bold]." in printed
