"""Words of others, in a terminal, in Markdown, in pictures."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

# Imported outside of any filter: its dependencies deprecate names that early versions use.
import matplotlib.figure  # noqa: F401
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.report import figures, run_folder
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.report.screen import Screen
from mgnp_jax.report.tables import Table
from mgnp_jax.report.text import (
    code,
    markdown,
    pictured,
    printable,
    save_picture,
)
from tests import tiny

NASTY = (
    "a|b `c` [red]d[/red] [x](y) <b>&amp; *e* _f_ $g$ \\ ~~h~~\x1b[31m\x07\r\n\u202e\udc80\x00 é"
)

anything = st.text(st.characters(codec=None), max_size=40)


@settings(max_examples=200, deadline=None, derandomize=True)
@example(NASTY)
@given(anything)
def test_no_text_controls_the_terminal(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not set(shown) & set("\x1b\x07\r\x00\x08\u202e\u2066\x9b")
    plain = "".join(filter(str.isalnum, text))
    assert printable(plain) == plain
    out = io.StringIO()
    Screen(file=out, width=10_000).print(f"[red]{text}", style="bold")
    assert out.getvalue().startswith("[red]") and "\x1b" not in out.getvalue()
    table = Table(title=text, columns=("", text), rows=((text, text),))
    out = io.StringIO()
    Console(file=out, width=10_000).print(table.rich())
    assert "\x1b" not in out.getvalue()


def test_markup_is_shown_as_it_is() -> None:
    out = io.StringIO()
    table = Table(title="[bold]t", columns=("[c]", ":smile:"), rows=(("[/r]", "[link=x]y"),))
    Console(file=out, width=200).print(table.rich())
    for words in ("[bold]t", "[c]", ":smile:", "[/r]", "[link=x]y"):
        assert words in out.getvalue()
    console = Screen(file=out, width=200)
    console.print("[/nothing] :smile:")
    with TrainingProgress(None, Console(file=out, width=200)) as progress:
        progress({"text": "[/closed] \x1b[31m"})
    assert "[/nothing] :smile:" in out.getvalue()
    assert "[/closed] \\x1b[31m" in out.getvalue()


@settings(max_examples=200, deadline=None, derandomize=True)
@example(NASTY)
@given(anything)
def test_a_cell_stays_a_cell(text: str) -> None:
    table = Table(title="t", columns=("", text), rows=((text, "1"),))
    lines = table.markdown().split("\n")
    assert len(lines) == 5
    for line in lines[2:]:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3
    assert "<" not in markdown(text)
    quoted = code(text, in_table=True)
    fence = quoted[: len(quoted) - len(quoted.lstrip("`"))]
    assert quoted.endswith(fence) and fence not in quoted[len(fence) : -len(fence)]


def test_markdown_shows_what_was_meant() -> None:
    assert (
        markdown("KL(model ‖ circuit), 12.5 % – kl_years")
        == "KL(model ‖ circuit), 12.5 % – kl_years"
    )
    assert markdown("[x](y) | *a* _b_ $c$ <i>") == r"\[x\](y) \| \*a\* \_b\_ \$c\$ &lt;i>"
    assert markdown("two\nlines") == "two lines"
    assert code("a`b") == "`` a`b ``" and code("a|b") == "`a|b`"


@pytest.mark.parametrize("title", [NASTY, "$", r"$\frac$", r"\$", "日本語 🙂", "x" * 5000])
def test_pictures_have_any_title(title: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.trade_off([1, 2], [3, 4], [5, 6], title)
        save_picture(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    assert len(pictured("x" * 5000)) == 100


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A run's folder of a task, model and method with odd names, and its results."""
    model = tiny.model("gpt2")
    masks = mg.full_masks(model.config)
    figures_ = mg.evaluate(model, masks, tiny.batch(model.config))
    metadata = {"task": NASTY, "model": NASTY, "method": NASTY, "data": {}}
    metadata["origin"] = {"prefix": NASTY}
    more = {"training": {"seconds": float("inf")}, "warnings": [NASTY]}
    circuit = mg.Circuit(masks=masks, metadata=metadata | more)
    results = run_folder.results_of(
        circuit, 0, mg.circuit_sizes(model.config, masks), figures_ | {"kl": float("nan")}
    )
    results["controls"] = dict.fromkeys(("circuit", "random", "complement", "empty"), figures_)
    folder = tmp_path / "a|b `c`\n$d\x1b[31m"
    folder.mkdir()
    run_folder.write(folder, circuit, circuit.masks, results)
    return folder, results


def test_the_page_of_a_run_with_odd_names(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith(f"# A circuit for {markdown(f'{NASTY} on {NASTY}')}\n")
    assert f"**Warning:** {markdown(NASTY)}\n" in page
    assert "\x1b" not in page and "<b>" not in page
    tables = [line for line in page.split("\n") if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert mg.load_circuit(folder).metadata["task"] == NASTY


def test_results_have_no_number_that_json_lacks(run: tuple[Path, dict[str, Any]]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = (run[0] / "results.json").read_text()
    results = json.loads(text, parse_constant=refuse)
    assert results["training"]["seconds"] is None and results["circuit"]["kl"] is None
    assert results["warnings"] == [NASTY]
