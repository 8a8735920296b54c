"""JSON of strangers, and files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.files import LARGEST_FILE, read_object, replacing, write_csv, write_whole


def test_a_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.md"
    write_whole(file, "one é\udc80")
    assert file.read_text(encoding="utf-8") == "one é\\udc80"

    def stop(*names: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, "two")
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
    assert file.read_text(encoding="utf-8") == "one é\\udc80"


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as stream:
        stream.truncate(200 * LARGEST_FILE)
    with pytest.raises(mg.MgnpError, match="2,000,000,000 bytes, wanted at most 10,000,000"):
        read_object(tmp_path / "x.json")


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json"):
        with pytest.raises(mg.MgnpError, match=f"{name} is no plain file"):
            read_object(tmp_path / name)


def test_what_to_do_is_said_by_whoever_reads(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with pytest.raises(mg.MgnpError, match="x.json cannot be read: .*; fetch it again"):
        read_object(file)
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_object(file) == {}
    file.write_text("{")
    with pytest.raises(mg.MgnpError, match="x.json is not JSON: .*; write it anew"):
        read_object(file, "write it anew")


def test_processes_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as part:
        assert part.name == "x.part"
        part.touch()
    with replacing(tmp_path / "x", shared=True) as part:
        assert str(os.getpid()) in part.name
        part.touch()


def test_a_table_is_written_as_it_is(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", ["a", "b"], [[1.5, None], ["c,d", 2]])
    assert (tmp_path / "x.csv").read_bytes() == b'a,b\r\n1.5,\r\n"c,d",2\r\n'
