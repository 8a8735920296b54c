"""A circuit as notebooks and shells show it: what is kept, and what was measured."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS, TABLE

FIGURES = {"kl": "KL, nats", "score": "Score", "accuracy": "Accuracy"}
"""What is shown of a circuit's figures; the last two beside the model's."""


def as_html(masks: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """A heading, a table of sizes and figures, and of nodes a grid of heads and MLPs.

    Args:
      masks: bool arrays by granularity, or of edges by kind of reader.
      metadata: of the circuit; a stranger's may hold anything, which shows as text.

    Returns:
      HTML without scripts and without links.
    """
    heading = "A circuit" + "".join(
        f" {word} {html.escape(str(value))}" for word, value in _origin(metadata).items()
    )
    rows = [*_kept(masks), *_measured(metadata.get("figures"))]
    cells = "".join(f"<tr><th scope=row>{name}</th><td>{text}</td></tr>" for name, text in rows)
    grid = _grid(masks) if set(TABLE) <= set(masks) else ""
    return f"<b>{heading}</b><table>{cells}</table>{grid}"


def as_line(masks: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Where a circuit came from, its sizes and its figures, for a shell.

    Args:
      masks: bool arrays by granularity, or of edges by kind of reader.
      metadata: of the circuit; a stranger's may hold anything, which shows as Python writes it.

    Returns:
      One line.
    """
    heading = "".join(f" {word} {value!r}" for word, value in _origin(metadata).items())
    rows = [*_kept(masks), *_measured(metadata.get("figures"))]
    return f"<Circuit{heading}: {'; '.join(f'{name} {text}' for name, text in rows)}>"


def _origin(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of where a circuit came from, by the word before it."""
    words = {"method": "by", "task": "for", "model": "on"}
    return {word: metadata[name] for name, word in words.items() if metadata.get(name)}


def _kept(masks: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not set(TABLE) <= set(masks):
        return [("Edges kept", f"{sum(int(np.sum(mask)) for mask in masks.values()):,}")]
    return [
        (f"{kind.label} kept", f"{int(np.sum(masks[name])):,} of {np.size(masks[name]):,}")
        for name, kind in TABLE.items()
    ]


def _measured(figures: Any) -> list[tuple[str, str]]:
    if not isinstance(figures, Mapping):
        return []
    found = []
    for name, label in FIGURES.items():
        value, base = figures.get(name), figures.get(f"base_{name}")
        if isinstance(value, int | float):
            beside = f" (model {base:.4g})" if isinstance(base, int | float) else ""
            found.append((label, f"{value:.4g}{beside}"))
    return found


def _grid(masks: Mapping[str, Any]) -> str:
    """A row a layer, the last one above; kept heads and MLPs are full squares."""
    heads, mlps = np.asarray(masks[ATTENTION_HEADS]), np.asarray(masks[MLP_BLOCKS])
    rows = [
        f"<tr><th scope=row>{layer}</th>"
        f"<td>{''.join('■' if kept else '□' for kept in heads[layer])}</td>"
        f"<td>{'■' if mlps[layer] else '□'}</td></tr>"
        for layer in reversed(range(len(heads)))
    ]
    names = "".join(f"<th scope=col>{name}</th>" for name in ("Layer", "Heads", "MLP"))
    return f"<table><tr>{names}</tr>{''.join(rows)}</table>"
