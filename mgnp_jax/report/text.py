"""Words of others (prompts, paths, names) made safe: for a terminal, for Markdown, in a picture."""

from __future__ import annotations

import re
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mgnp_jax.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_TITLE = 100
"""Characters of a name that a picture has room for."""

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show others in another order than they stand in."""


def printable(text: str) -> str:
    """Text with its control characters, line ends aside, and halves of characters as escapes.

    Args:
      text: anyone's.
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter in _TURNING or (letter != "\n" and unicodedata.category(letter) in ("Cc", "Cs"))
        else letter
        for letter in text
    )


def markdown(text: str) -> str:
    """Text on one line of Markdown, in a table or not, that shows as it is.

    Args:
      text: anyone's.
    """
    line = " ".join(printable(text).split("\n")).replace("&", "&amp;").replace("<", "&lt;")
    # An underscore within a word means nothing.
    return re.sub(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def code(text: str, *, in_table: bool = False) -> str:
    """Text as code on one line of Markdown.

    Args:
      text: anyone's.
      in_table: whether a bar would end a cell.
    """
    line = " ".join(printable(text).split("\n"))
    line = line.replace("|", "\\|") if in_table else line
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def pictured(text: str) -> str:
    """Text for a picture, in which a dollar begins no formula.

    Args:
      text: anyone's.
    """
    line = " ".join(printable(text).split("\n"))
    if len(line) > LONGEST_TITLE:
        line = line[: LONGEST_TITLE - 1] + "…"
    return line.replace("$", r"\$")


def save_picture(figure: Figure, file: Path) -> None:
    """Writes a picture, in which letters that its font lacks are boxes.

    Args:
      figure: what to draw.
      file: PNG, replaced whole.
    """
    with replacing(file) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(part, dpi=150, format="png")
