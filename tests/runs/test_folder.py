"""A run's folder: one process has it, what is in it is not lost, what may change is known."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.passes.settings import that_count
from mgnp_jax.report import run_folder
from mgnp_jax.runs import saving as module
from mgnp_jax.runs.config import RunConfig, check_same, settings_text
from mgnp_jax.runs.folder import OWN, held, last_default, new_default
from mgnp_jax.runs.run import ensured, run
from tests import tiny
from tests.experiments.processes import HOLD, NAMES


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run that takes no time."""
    rows = [
        {
            "clean": f"Then {a} and Tom spent the day at the park, and Tom gave a book to",
            "corrupted": f"Then {b} and Tom spent the day at the park, and {a} gave a book to",
            "answers": [f" {a}"],
            "wrong_answers": [f" {b}"],
        }
        for a, b in zip(NAMES, NAMES[1:] + NAMES[:1])
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)).replace("Tom", "Peter"))
    method = mg.METHODS["magnitude"]()
    return RunConfig(data=file, out=tmp_path / "run", config=method)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_lock_of_a_live_process_is_one_and_that_of_a_dead_one_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(2):
        with pytest.raises(mg.MgnpError, match=rf"in use by another run \(process {process.pid}\)"):
            with held(folder):
                pass
    process.kill()
    process.communicate()
    assert (folder / ".lock").read_text() == str(process.pid)
    with held(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())
        with pytest.raises(mg.MgnpError, match=f"process {os.getpid()}"):
            with held(folder):
                pass
    # Nothing was in it.
    assert not folder.exists()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*others: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(mg.MgnpError, match=r"run/.lock cannot be locked \(No locks available\)"):
        with held(tmp_path / "run"):
            pass


@pytest.mark.parametrize("when", ["open", "fstat"])
def test_a_lock_that_is_given_up_at_that_moment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder, whole = tmp_path / "run", getattr(os, when)
    given_up: list[int] = []

    def late(*others: Any) -> Any:
        if not given_up:
            given_up.append(1)
            (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()
        return whole(*others)

    monkeypatch.setattr(os, when, late)
    with held(folder):
        assert given_up and (folder / ".lock").read_text() == str(os.getpid())


def test_a_name_that_is_none_of_the_choices_is_refused() -> None:
    with pytest.raises(mg.MgnpError, match="gt_corruption must be one of 01, other, got '02'"):
        RunConfig(task="gt", gt_corruption="02")  # type: ignore[arg-type]


def test_what_a_run_holds_decides_what_is_said(config: RunConfig) -> None:
    assert config.out is not None
    again = dataclasses.replace(config, resume=True)
    with pytest.raises(mg.MgnpError, match="nothing to go on with in .*no run was begun there"):
        run(again, quiet())
    # Ended before it had begun.
    config.out.mkdir()
    for name in OWN:
        (config.out / name).touch()
    results = run(config, quiet())
    names = {path.name for path in config.out.iterdir()}
    assert "results.json" in names and not names & {"resume", ".lock"}
    with pytest.raises(mg.MgnpError, match="is not an empty folder; nothing was computed"):
        run(config, quiet())
    console = quiet()
    assert run(again, console) == results
    assert "is done already" in printed(console)
    assert ensured(config, quiet()) == results
    with pytest.raises(mg.MgnpError, match="was run with another keep; pass another --out"):
        run(
            dataclasses.replace(again, config=dataclasses.replace(config.config, keep=0.2)), quiet()
        )
    assert {path.name for path in config.out.iterdir()} == names


def test_a_folder_of_another_kind_is_never_taken_for_a_run(config: RunConfig) -> None:
    assert config.out is not None
    config.out.mkdir()
    file = config.out / "config.json"
    file.write_text('{"model_type": "gpt2", "vocab_size": 3}')
    with pytest.raises(mg.MgnpError, match="is not an empty folder") as error:
        run(config, quiet())
    assert "delete" not in str(error.value) and "--resume" not in str(error.value)
    with pytest.raises(mg.MgnpError, match="no run was begun there"):
        run(dataclasses.replace(config, resume=True), quiet())
    assert [path.name for path in config.out.iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", ["config.json", "results.json"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "is not JSON"),
        (b"[]", "holds list, wanted an object"),
        (b"\xff", "is not JSON"),
        (b'{"training": 3}', ""),
    ],
)
def test_json_that_is_broken_is_said(config: RunConfig, name: str, text: bytes, told: str) -> None:
    assert config.out is not None
    run(config, quiet())
    (config.out / name).write_bytes(text)
    # An object that is whole says whose it is.
    others = {
        "config.json": f"--out {config.out} is not an empty folder",
        "results.json": "results.json does not hold the results of a run; restore it",
    }
    expected = f"{name} {told}" if told else others[name]
    for use in (run, ensured):
        with pytest.raises(mg.MgnpError, match=re.escape(expected)):
            use(config, quiet())


def test_results_of_prompts_that_have_changed_are_refused(config: RunConfig) -> None:
    assert config.out is not None and config.data is not None
    results = run(config, quiet())
    text = config.data.read_text()
    config.data.write_text(text.replace("park", "school"))
    for resume in (False, True):
        with pytest.raises(mg.MgnpError, match="other contents of --data, which changed since"):
            (run if resume else ensured)(dataclasses.replace(config, resume=resume), quiet())
    config.data.write_text(text)
    assert ensured(config, quiet()) == results
    # What was begun before checksums were taken is known by its settings.
    file = config.out / "config.json"
    settings = json.loads(file.read_text())
    assert list(settings.pop("checksums")) == ["data"]
    file.write_text(json.dumps(settings))
    assert ensured(config, quiet()) == results


def test_a_checkpoint_or_circuit_that_has_changed_is_noticed(
    config: RunConfig, tmp_path: Path
) -> None:
    folder, like = tmp_path / "model", tmp_path / "like"
    folder.mkdir()
    like.mkdir()
    (folder / "model.safetensors").write_bytes(b"abc")
    masks = mg.full_masks(tiny.GPT2)
    mg.Circuit(masks=masks, metadata={}).save(like / "circuit")
    method = dataclasses.replace(config.config, like=like)
    config = dataclasses.replace(config, model=str(folder), config=method)
    assert config.out is not None
    config.out.mkdir()
    (config.out / "config.json").write_text(settings_text(config))
    check_same(config.out, config)
    # The same circuit, saved again.
    shutil.rmtree(like / "circuit")
    mg.Circuit(masks=masks, metadata={"note": "again"}).save(like / "circuit")
    check_same(config.out, config)
    (folder / "model.safetensors").write_bytes(b"other")
    shutil.rmtree(like / "circuit")
    other = masks | {"mlp_output": masks["mlp_output"].at[0, 0].set(0)}
    mg.Circuit(masks=other, metadata={}).save(like / "circuit")
    with pytest.raises(mg.MgnpError, match="other contents of --model and --like, which changed"):
        check_same(config.out, config)


def test_settings_that_were_not_there_at_all_are_named(config: RunConfig) -> None:
    method: Any = mg.METHODS["node-pruning-published"]()
    config = dataclasses.replace(config, method="", config=method)
    assert config.out is not None
    config.out.mkdir()
    (config.out / "config.json").write_text(settings_text(config))
    of_tasks = {**method.of_tasks, "boxes": method.of_tasks["ioi"]}
    other = dataclasses.replace(config, config=dataclasses.replace(method, of_tasks=of_tasks))
    with pytest.raises(mg.MgnpError, match="was run with another .*epochs"):
        check_same(config.out, other)


def test_a_run_of_before_a_setting_is_that_of_its_default(config: RunConfig) -> None:
    run(config, quiet())
    assert config.out is not None
    file = config.out / "config.json"
    saved = json.loads(file.read_text())
    assert saved.pop("train_prompts", 0) is None
    file.write_text(json.dumps(saved))
    again = dataclasses.replace(config, resume=True)
    console = quiet()
    run(again, console)
    assert "is done already" in printed(console)
    with pytest.raises(mg.MgnpError, match="was run with another train_prompts; pass another"):
        run(dataclasses.replace(again, train_prompts=2), quiet())


def test_settings_that_are_infinite_are_the_same_again(config: RunConfig) -> None:
    method = mg.DiscoverConfig(clip_norm=float("inf"), steps=1, batch_size=2)
    config = dataclasses.replace(config, method="", config=method)
    assert config.out is not None
    config.out.mkdir()
    (config.out / "config.json").write_text(settings_text(config))
    check_same(config.out, config)
    with pytest.raises(mg.MgnpError, match="with another clip_norm"):
        other = dataclasses.replace(method, clip_norm=1.0)
        check_same(config.out, dataclasses.replace(config, config=other))


def test_a_run_is_done_though_its_states_stay(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.out is not None

    def denied(*others: Any, **more: Any) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", denied)
        results = run(config, quiet())
    assert (config.out / "resume").exists()
    assert ensured(config, quiet()) == results
    assert not (config.out / "resume").exists()


def test_a_full_disk_leaves_the_circuit_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for note in ("first", "second"):
        circuit = mg.Circuit(masks=mg.full_masks(tiny.GPT2), metadata={"note": note})
        run_folder.save_circuit(tmp_path, circuit)

    def full(*others: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(mg.MgnpError, match="circuit cannot be written .*No space left"):
        run_folder.save_circuit(tmp_path, circuit)
    assert mg.load_circuit(tmp_path).metadata["note"] == "second"


def test_a_run_that_was_killed_while_it_measured_does_not_search_again(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.out is not None
    searched: list[int] = []
    find = type(config.config).find

    def counted(self: Any, *others: Any) -> mg.Circuit:
        searched.append(1)
        return find(self, *others)

    def killed(*others: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(config.config), "find", counted)
    for place in (
        "evaluate_with_bar",
        "controls_of",
        "run_folder.write",
        "run_folder.neurons_figure",
    ):
        owner, _, name = place.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(module, owner) if owner else module, name, killed)
            with pytest.raises(KeyboardInterrupt, match="the circuit that was found is kept"):
                ensured(config, quiet())
        with pytest.raises(mg.MgnpError, match="holds a run that is not done.*Add --resume"):
            run(config, quiet())
    # Settings that say where and when may be others.
    results = ensured(dataclasses.replace(config, save_every=1.0), quiet())
    assert len(searched) == 1 and results["circuit"]["prompts"] > 0
    assert not (config.out / "resume").exists()


def test_a_folder_that_cannot_be_written_to_is_said(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(mg.MgnpError, match="no folder for the run can be made at .*mine.jsonl"):
        run(dataclasses.replace(config, out=tmp_path / "mine.jsonl" / "run"), quiet())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(mg.MgnpError, match="no folder for the run can be made at runs"):
        run(dataclasses.replace(config, out=None), quiet())

    def full(*others: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(module.run_folder, "write_whole", full)
        with pytest.raises(mg.MgnpError, match="somewhere cannot be .*No space left"):
            run(config, quiet())


def test_without_out_the_latest_folder_of_that_name_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert last_default("a b") == Path("runs/a-b")
    made = [new_default("a b") for _ in range(11)]
    assert made[-1] == last_default("a b") == Path("runs/a-b-11")
    new_default("a b c")
    assert last_default("a b") == made[-1]


def test_without_out_a_run_that_is_not_done_is_said(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(config, out=None)
    run(config, quiet())
    (made,) = (tmp_path / "runs").iterdir()
    (made / "results.json").unlink()
    for text in (None, "{"):
        if text is not None:
            (tmp_path / "runs" / f"{made.name}-2" / "results.json").write_text(text)
        console = quiet()
        run(config, console)
        told = f"runs/{made.name} holds a run that is not done (--resume"
        assert (told in printed(console)) == (text is None)


def test_settings_that_cannot_change_the_result_are_marked_as_such() -> None:
    config = RunConfig(task="ioi")
    assert {"out", "resume", "save_every"}.isdisjoint(that_count(config))
    execution = dataclasses.asdict(config.config.execution)
    counting = that_count(config)["config"]["execution"]
    assert set(execution) - set(counting) == {"cache_on", "memory_gib"}
    assert that_count(mg.METHODS["node-pruning-published"]())["of_tasks"]["gp"]["epochs"] == 200


def saved_without(config: RunConfig, method: Any, *setting: str) -> RunConfig:
    """A run whose folder was written before a setting of its method was there."""
    run = dataclasses.replace(config, method="", config=method)
    assert run.out is not None
    run.out.mkdir(exist_ok=True)
    settings = json.loads(settings_text(run))
    *way, last = setting
    where = settings["config"]
    for name in way:
        where = where[name]
    del where[last]
    (run.out / "config.json").write_text(json.dumps(settings))
    return run


def test_a_run_from_before_one_gave_every_size_is_not_taken_for_one_of_now(
    config: RunConfig,
) -> None:
    now = saved_without(config, mg.DiscoverConfig(), "votes")
    assert now.out is not None
    file = now.out / "config.json"
    settings = json.loads(file.read_text())
    # A run had these, and nothing came of them.
    file.write_text(json.dumps({**settings, "sweep": None, "sweep_span": 8.0}))
    check_same(now.out, now)
    older = {**settings["config"], "nested": False, "score_gain": 0.5}
    file.write_text(json.dumps({**settings, "config": older}))
    with pytest.raises(mg.MgnpError, match="was run with another nested, config.score_gain"):
        check_same(now.out, now)


def test_edge_pruning_from_before_its_decay_is_not_taken_for_one_of_now(config: RunConfig) -> None:
    now = saved_without(config, mg.METHODS["edge-pruning"](), "weight_decay")
    assert now.out is not None
    # Its size was another, too: without a decay it is another run all the same.
    for decay in (0.01, 0.0):
        method = mg.METHODS["edge-pruning"](weight_decay=decay)  # type: ignore[call-arg]
        with pytest.raises(mg.MgnpError, match="was run with another weight_decay"):
            check_same(now.out, dataclasses.replace(now, config=method))
