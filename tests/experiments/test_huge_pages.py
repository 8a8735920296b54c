"""Programs begin again with huge pages, once, and only where that gains something."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import huge_pages


class Begun(BaseException):
    """What `os.execve` would have begun."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """A machine on which asking helps; what was begun instead of this process."""
    calls: list[Any] = []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        calls.append((path, arguments, environment["GLIBC_TUNABLES"]))
        raise Begun

    mode = tmp_path / "enabled"
    mode.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "MODE", mode)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "utf8", "-m", "experiments.run"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


def test_the_same_command_begins_again(begun: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Begun):
        huge_pages.ask_for_huge_pages()
    again = [sys.executable, "-X", "utf8", "-m", "experiments.run"]
    assert begun == [(sys.executable, again, "glibc.malloc.hugetlb=1")]
    # What else was asked of glibc stays.
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    with pytest.raises(Begun):
        huge_pages.ask_for_huge_pages()
    assert begun[1][2] == "glibc.malloc.check=3:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("said", ["glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=0"])
def test_who_has_said_it_is_not_asked_again(
    begun: list[Any], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", said)
    huge_pages.ask_for_huge_pages()
    assert not begun


@pytest.mark.parametrize("libc", ["glibc 2.34", "musl 1.2", "", None])
def test_other_libraries_are_left_alone(
    begun: list[Any], monkeypatch: pytest.MonkeyPatch, libc: str | None
) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: libc, raising=False)
    huge_pages.ask_for_huge_pages()
    assert not begun


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_begins_where_it_would_gain_nothing(begun: list[Any], mode: str | None) -> None:
    if mode is None:
        huge_pages.MODE.unlink()
    else:
        huge_pages.MODE.write_text(mode)
    huge_pages.ask_for_huge_pages()
    assert not begun


def test_a_program_that_cannot_begin_again_goes_on(
    begun: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(os, "execve", fails)
    huge_pages.ask_for_huge_pages()
