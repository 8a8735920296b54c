"""The rows of the page that lists runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.report.page.headline import at

NUMBERS: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (("circuit", "kl"), 1, "{:z.4f}"),
    (("circuit", "score"), 1, "{:z.3f}"),
    (("base", "score"), 1, "{:z.3f}"),
    (("circuit", "accuracy"), 1, "{:.3f}"),
    (("parameters", "prunable_kept"), 100, "{:.1f}"),
    (("sizes", ATTENTION_HEADS, "active"), 1, "{:,}"),
    (("edges", "active"), 1, "{:,}"),
    (("training", "seconds"), 1, "{:.1f}"),
)
"""Figures of results.json in the order of the columns, what they are multiplied by, and how they
are written."""


def run_rows(found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What the template shows of each run.

    Args:
      found: folder as the page's reader calls it, the file in it that its link opens, and
        what results.json says, which may be anything.
    """
    return [
        {
            "folder": folder,
            # A name may hold what means something else in an address, such as a colon.
            "link": "./" + quote(f"{folder}/{page}"),
            **{name: _text(results.get(name)) for name in ("task", "model", "method", "seed")},
            "numbers": [(_scaled(at(results, *path), by), form) for path, by, form in NUMBERS],
        }
        for folder, page, results in found
    ]


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _scaled(value: Any, by: float) -> Any:
    return None if value is None else value * by
