"""Pages put together: a template, our styles and scripts, and data that nothing in it can leave."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from mgnp_jax.files import write_whole
from mgnp_jax.report.page.headline import headlines, told
from mgnp_jax.types import MgnpError, plain_json
from mgnp_jax.version import __version__

PAGE = "index.html"
"""The page of a run, in its folder; and of a folder of runs."""

SCRIPTS = (
    "state",
    "dom",
    "nodes",
    "shading",
    "header",
    "grid",
    "size",
    "table",
    "tokens",
    "pattern",
    "panel",
    "graph_layout",
    "graph",
    "prompts",
    "lens",
    "compare",
    "notes",
    "files",
    "search",
    "main",
)
"""Our scripts, in the order in which they run: a later one may use what an earlier one has."""

GENERATOR = b'<meta name="generator" content="mgnp_jax'
"""By which pages of ours are known."""

ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""Characters of JSON that could end the element it stands in, as JSON can say them otherwise."""


def embedded(content: Any) -> str:
    """JSON that can stand within a script element, whatever texts are in it.

    Args:
      content: anything that JSON can hold; numbers that are not finite become null.
    """
    text = json.dumps(plain_json(content), separators=(",", ":"), allow_nan=False)
    for letter, escape in ESCAPED.items():
        text = text.replace(letter, escape)
    return text


def write_page(file: Path, content: Mapping[str, Any]) -> None:
    """Writes the page of a circuit, whole or not at all.

    Args:
      file: HTML, to be replaced.
      content: as `content_of` returns it.

    Raises:
      MgnpError: if there is a page of someone else.
    """
    _check_ours(file)
    scripts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    text = (
        _templates()
        .get_template("page.html.jinja")
        .render(
            content=content,
            about=told(content["title"], content["level"], content["results"]),
            headlines=headlines(content["results"]),
            warnings=content["results"].get("warnings", []),
            data=embedded(content),
            styles=_asset("page.css"),
            library=_asset("d3.min.js"),
            licence=_asset("d3.LICENSE"),
            scripts=scripts,
            version=__version__,
        )
    )
    write_whole(file, text)


def write_list(file: Path, title: str, rows: list[dict[str, Any]]) -> None:
    """Writes the page that lists runs, whole or not at all.

    Args:
      file: HTML, to be replaced.
      title: of the page.
      rows: as `run_rows` returns them.

    Raises:
      MgnpError: if there is a page of someone else.
    """
    _check_ours(file)
    text = (
        _templates()
        .get_template("runs.html.jinja")
        .render(
            title=title,
            rows=rows,
            styles=_asset("page.css"),
            scripts=_asset("sorting.js"),
            version=__version__,
        )
    )
    write_whole(file, text)


def _check_ours(file: Path) -> None:
    """Refuses to write over what no page of ours is, such as a folder's own index.html."""
    if file.exists() and not (file.is_file() and GENERATOR in file.read_bytes()[:2_000]):
        raise MgnpError(f"{file} is there and was not made by this command; pass another --out")


@functools.cache
def _asset(name: str) -> str:
    file = resources.files("mgnp_jax.report.page") / "assets" / name
    return file.read_text(encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(_asset)
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
