"""Prompts to measure a saved circuit on: those it was found on, as its run had them, or others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgnp_jax.models.hub import Model
from mgnp_jax.tasks import load_task
from mgnp_jax.tasks.answers import SINGLE
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import MgnpError

UNKNOWN: dict[str, Any] = {
    **{"source": "", "seed": 0, "extra_corruptions": 0, "skip_bad": False},
    **{"metric": "logit_difference", "answer": SINGLE, "prefix": None, "train_prompts": None},
}
"""What is taken for an origin that does not say."""


def origin_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Where a circuit's prompts are from, and how they were read.

    Args:
      metadata: of the circuit.

    Returns:
      At least what `UNKNOWN` has.
    """
    said = metadata.get("origin") or {}
    found = UNKNOWN | {name: value for name, value in said.items() if value is not None}
    # Built-in tasks have their own.
    return found | {name: found[name] or UNKNOWN[name] for name in ("metric", "answer")}


def is_own_file(file: Path, metadata: Mapping[str, Any], model: Model) -> bool:
    """Whether a circuit was found on this file, whatever it is called and wherever it lies.

    Args:
      file: of prompts.
      metadata: of the circuit.
      model: whose tokenizer reads it; with another one than the circuit's, only the file that
        still lies in its place is known.
    """
    origin = origin_of(metadata)
    if str(file.resolve()) == origin["source"]:
        return True
    try:
        data = load_task(
            file,
            model.tokenizer,
            origin["seed"],
            skip_bad=origin["skip_bad"],
            train_prompts=origin["train_prompts"],
            metric=origin["metric"],
            answer=origin["answer"],
            prefix=origin["prefix"],
            limits=model.config,
        )
    except MgnpError:
        # The circuit's own could be read so.
        return False
    return data.checksum() == metadata.get("data_checksum")


def prompts_for(
    metadata: Mapping[str, Any],
    model: Model,
    source: Path | str | None,
    *,
    seed: int | None = None,
    skip_bad: bool = False,
    metric: str | None = None,
    answer: str | None = None,
    prefix: str | None = None,
) -> tuple[TaskData, bool]:
    """Reads prompts to measure a circuit on.

    Args:
      metadata: of the circuit.
      model: that is measured.
      source: a file, or the name of a built-in task; None for what the circuit was found on.
      seed: of the prompts; this and what follows as the circuit's run had it by default.
      skip_bad: leave out pairs of a file that cannot be used.
      metric: how scores are read from the answers of a file.
      answer: what is scored of them.
      prefix: put before every prompt.

    Returns:
      The prompts, and whether the circuit was found on this task or file.

    Raises:
      MgnpError: if there are none, or they cannot be used.
    """
    origin = origin_of(metadata)
    if not (source := source or origin["source"]):
        raise MgnpError(
            "the circuit does not say on which prompts it was found, or they were given from "
            "Python and are not saved with it; pass --task or --data FILE"
        )
    if isinstance(source, Path):
        own = is_own_file(source, metadata, model)
    else:
        own = source == origin["source"]
    data = load_task(
        source,
        model.tokenizer,
        origin["seed"] if seed is None else seed,
        skip_bad=skip_bad or (own and origin["skip_bad"]),
        extra_corruptions=origin["extra_corruptions"],
        # Others may not have as many.
        train_prompts=origin["train_prompts"] if own else None,
        metric=metric or origin["metric"],
        answer=answer or origin["answer"],
        prefix=origin["prefix"] if prefix is None else prefix,
        limits=model.config,
        # A file of other prompts is all held out, unless it says otherwise.
        all_test=not own,
    )
    if data.prefix and prefix is None and origin["prefix"] is not None:
        found_so = data.prefix._replace(why="as when the circuit was found")
        data = dataclasses.replace(data, prefix=found_so)
    return data, own
