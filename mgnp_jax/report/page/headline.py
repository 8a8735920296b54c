"""What stands above everything else on a page: a sentence and the figures of a circuit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS, MLP_HIDDEN, TABLE
from mgnp_jax.tasks.answers import WHOLE
from mgnp_jax.tasks.problems import many


class Headline(NamedTuple):
    """A figure and what it is put beside.

    Attributes:
      label: what it is, with its unit.
      value: as it is read.
      note: what to hold it against; may be empty.
    """

    label: str
    value: str
    note: str = ""


COMPARED = (
    ("Score", "circuit", "score", "base", "score"),
    ("Accuracy, test", "circuit", "accuracy", "base", "accuracy"),
    ("Accuracy, training", "train", "accuracy", "train", "base_accuracy"),
    ("Accuracy, validation", "validation", "accuracy", "validation", "base_accuracy"),
)
"""Figures of the circuit, and where results.json has the model's."""


def headlines(results: Mapping[str, Any]) -> list[Headline]:
    """The figures that results.json has; those that it lacks are left out.

    Args:
      results: as in results.json, which may be of another version.
    """
    found = []
    if (kl := at(results, "circuit", "kl")) is not None:
        found.append(Headline("KL(model ‖ circuit), nats", f"{kl:z.4f}"))
    for label, part, name, base, its_name in COMPARED:
        own, models = at(results, part, name), at(results, base, its_name)
        if own is not None and models is not None:
            found.append(Headline(label, f"{own:z.3f}", f"model {models:z.3f}"))
    if (same := at(results, "circuit", "exact_match")) is not None:
        found.append(Headline("Same top token", f"{same:.3f}"))
    if (kept := at(results, "parameters", "prunable_kept")) is not None:
        found.append(Headline("Prunable parameters kept", f"{100 * kept:.1f} %"))
    for name in (ATTENTION_HEADS, MLP_BLOCKS, MLP_HIDDEN):
        found += _sized(TABLE[name].label, results, "sizes", name)
    return found + _sized("Edges", results, "edges")


def _sized(label: str, results: Mapping[str, Any], *path: str) -> list[Headline]:
    active, total = at(results, *path, "active"), at(results, *path, "total")
    if active is None or total is None:
        return []
    return [Headline(label, f"{active:,}", f"of {total:,}")]


def told(title: Mapping[str, Any], level: str, results: Mapping[str, Any]) -> str:
    """How the circuit was found and measured, in sentences.

    Args:
      title: as `title_of` returns it.
      level: of nodes or edges.
      results: as in results.json.
    """
    parts = [f"A circuit of {level}s found by {title['method'] or 'an unknown method'}"]
    if title["seed"] is not None:
        parts.append(f", seed {title['seed']}")
    if title["at"]:
        sizes = " and ".join(f"{name} = {value}" for name, value in title["at"].items())
        parts.append(f", at {sizes}")
    if train := at(results, "data", "train"):
        parts.append(f", on {many(int(train), 'training prompt')}")
    if prompts := at(results, "circuit", "prompts"):
        parts.append(f"; measured on {prompts:,} held-out ones")
    if results.get("answer") == WHOLE:
        parts.append(", answers scored whole by their log-probability")
    parts.append(".")
    if (seconds := at(results, "training", "seconds")) is not None:
        parts.append(f" The search took {seconds:,.0f} s.")
    return "".join(parts)


def at(results: Mapping[str, Any], *path: str) -> Any:
    """A number within results; None where there is none.

    Args:
      results: nested objects.
      *path: names that lead to it.
    """
    value: Any = results
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and value == value else None
