"""The terminal or pipe that a command prints to, whatever it can show and however long it lasts."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from mgnp_jax.report.text import printable


class Screen(Console):
    """A console that shows text as it is, without markup, emoji codes and control characters."""

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """What Rich does with each text that is printed.

        Args:
          text: to be shown.
          **options: of Rich.
        """
        plain = {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(text), **{**options, **plain})


def show_what_can_be_shown() -> None:
    """Lets a terminal or pipe that lacks a character show a question mark instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def flush_quietly() -> None:
    """Writes what is left to be; whoever closed the pipe (`| head`) does not want to hear of it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
