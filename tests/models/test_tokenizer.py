"""Tokenizers are data: what is damaged is refused, no code runs, no other file is read."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.tokenizer import load_tokenizer
from mgnp_jax.tasks.prefix import POLICY
from tests import wordy


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", ""),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": "a", "merges": 3}}'),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "3"),
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", json.dumps({**wordy.BASE, "bos_token": {"content": "<s>"}})),
        ("tokenizer_config.json", json.dumps({**wordy.BASE, "unk_token": 3})),
        ("tokenizer_config.json", json.dumps({**wordy.BASE, "added_tokens_decoder": [1]})),
        ("tokenizer_config.json", json.dumps({**wordy.BASE, POLICY: 3})),
        ("tokenizer_config.json", json.dumps({"tokenizer_class": "NoSuchTokenizer"})),
        ("tokenizer_config.json", json.dumps({"tokenizer_class": ["a"]})),
    ],
)
def test_damaged_tokenizers_are_refused_in_our_own_words(
    tmp_path: Path, file: str, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    wordy.folder(tmp_path)
    (tmp_path / file).write_text(text)
    try:
        load_tokenizer(tmp_path)("the car")
    except mg.MgnpError as error:
        assert str(tmp_path) in str(error) and len(str(error)) < 1000
    else:
        # transformers falls back on what tokenizer.json says.
        assert "NoSuchTokenizer" in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "added_tokens.json"])
def test_a_pipe_among_its_files_is_not_waited_for(tmp_path: Path, name: str) -> None:
    wordy.folder(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(mg.MgnpError, match=f"{name} is neither a file nor a folder"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("named", [None, "MyTokenizer", "PreTrainedTokenizerFast"])
def test_code_that_comes_with_a_checkpoint_is_never_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    class Closed(io.StringIO):
        def readline(self, *_: object) -> str:
            raise AssertionError("standard input was read")

    monkeypatch.setattr(sys, "stdin", Closed())
    wordy.folder(tmp_path, auto_map={"AutoTokenizer": ["mine.MyTokenizer", None]})
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": named}))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    if named == "PreTrainedTokenizerFast":
        assert load_tokenizer(tmp_path)("the car")["input_ids"] == [4, 5]
    else:
        with pytest.raises(mg.MgnpError, match="code that comes with a checkpoint is never run"):
            load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_no_file_outside_the_folder_is_read(tmp_path: Path) -> None:
    other = wordy.folder(tmp_path / "other")
    (other / "tokenizer.json").rename(other / "tokenizer.4.0.json")
    named: dict[str, Any] = {
        "fast_tokenizer_files": ["../other/tokenizer.4.0.json"],
        "gguf_file": "../other/model.gguf",
    }
    for key in named:
        folder = wordy.folder(tmp_path / key, **{key: named[key]})
        with pytest.raises(mg.MgnpError, match=f"names other files \\('{key}'\\)"):
            load_tokenizer(folder)
    # transformers writes such paths itself, and reads the folder's own files.
    folder = wordy.folder(tmp_path / "own", tokenizer_file="/nonexistent/tokenizer.json")
    assert load_tokenizer(folder)("the car")["input_ids"] == [4, 5]


def test_a_folder_without_tokenizer_loads_and_says_so_when_prompts_are_made(
    tmp_path: Path,
) -> None:
    assert load_tokenizer(tmp_path) is None
    with pytest.raises(mg.MgnpError, match="the model has no tokenizer"):
        mg.load_task("ioi", None)
