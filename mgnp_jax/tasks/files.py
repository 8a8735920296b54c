"""A user's own prompts: JSON Lines, one pair a line, or auto-circuit's JSON layout.

    {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong_answers": [" John"],
     "split": "train"}

    {"prompts": [{"clean": "…", "corrupt": "…", "answers": […], "wrong_answers": […]}, …]}

`split` is optional; pairs without one are shuffled by the seed and cut 50 / 25 / 25.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair, encode_pairs, logit_difference, problems_of
from mgnp_jax.tasks.task import TaskData, split
from mgnp_jax.types import MgnpError, Tokenizer

SPLITS = ("train", "validation", "test")


def load_file(path: Path, tokenizer: Tokenizer, seed: int, *, skip_bad: bool = False) -> TaskData:
    """Reads prompt pairs from a file.

    Args:
      path: JSON Lines, or one JSON object with `prompts`.
      tokenizer: a transformers tokenizer.
      seed: of the shuffle, where pairs name no split.
      skip_bad: leave out pairs that cannot be used instead of refusing the file.

    Returns:
      The splits, named after the file.

    Raises:
      MgnpError: naming every bad line, what was wanted and what was got.
    """
    if not path.is_file():
        raise MgnpError(f"data file {path} does not exist; wanted a JSON Lines file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MgnpError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    read: list[tuple[PromptPair, str | None]] = []
    # By line, in the file's order.
    problems: dict[str, list[str]] = {}
    for origin, row in _rows(text, path.name):
        problems[origin] = []
        try:
            read.append(_parse(row, origin))
        except MgnpError as error:
            problems[origin].append(str(error))
    found = problems_of(tokenizer, [pair for pair, _ in read])
    first: dict[str, str] = {}
    for (pair, _), each in zip(read, found):
        # A prompt that is trained on and tested on would make the figures mean nothing.
        if pair.clean in first:
            each.append(f"{pair.origin}: the clean prompt is that of {first[pair.clean]}")
        elif not each:
            first[pair.clean] = pair.origin
        problems[pair.origin] += each
    bad = [line for line in problems.values() if line]
    named = tuple(problem for line in bad for problem in line)
    if bad and not skip_bad:
        shown = "\n  ".join(named)
        raise MgnpError(
            f"{len(named)} problem(s) in {len(bad)} bad line(s) in {path}:\n  {shown}\n"
            "Mend these lines, or pass --skip-bad to leave them out."
        )
    good = [pair for pair, each in zip(read, found) if not each]
    pairs, splits = [pair for pair, _ in good], [part for _, part in good]
    if len({part is None for part in splits}) > 1:
        raise MgnpError(f"{path.name}: some lines have a split and some not; wanted all or none")
    if len(pairs) < len(SPLITS):
        raise MgnpError(
            f"{path} has {len(pairs)} usable prompt pairs; wanted at least {len(SPLITS)}"
        )
    if splits[0] is None:
        order = np.random.default_rng(seed).permutation(len(pairs))
        train, validation = max(1, len(pairs) // 2), max(1, len(pairs) // 4)
    else:
        rank = [SPLITS.index(part or "") for part in splits]
        order = np.argsort(rank, kind="stable")
        train, validation = rank.count(0), rank.count(1)
        if not (train and validation and rank.count(2)):
            raise MgnpError(
                f"{path}: splits have {train} / {validation} / {rank.count(2)} pairs; each of "
                f"{', '.join(SPLITS)} needs at least one"
            )
    whole = encode_pairs(tokenizer, [pairs[i] for i in order], "logits")
    source = str(path.resolve())
    data = split(path.stem, whole, train, validation, source=source, seed=seed)
    return dataclasses.replace(data, skipped=len(bad), problems=named)


def _rows(text: str, name: str) -> Iterator[tuple[str, Any]]:
    """Parsed rows and where they stand; what is not JSON stays text, for `_parse` to name."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("prompts"), list):
        for number, row in enumerate(whole["prompts"]):
            if isinstance(row, dict) and "corrupt" in row:
                row = {**row, "corrupted": row["corrupt"]}
            yield f"{name}: prompts[{number}]", row
        return
    # Not splitlines: text inside a JSON string may hold its other separators.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        # ValueError covers malformed text and numbers too long to read.
        except (ValueError, RecursionError) as error:
            row = error
        yield f"{name}:{number}", row


def _parse(row: Any, origin: str) -> tuple[PromptPair, str | None]:
    if isinstance(row, Exception):
        raise MgnpError(f"{origin}: not JSON ({row})")
    if not isinstance(row, dict):
        raise MgnpError(f"{origin}: wanted an object, got {type(row).__name__}")
    for field in ("clean", "corrupted"):
        if not isinstance(row.get(field), str) or not row[field]:
            raise MgnpError(f"{origin}: field {field!r} must be text, got {row.get(field)!r}")
    for field in ("answers", "wrong_answers"):
        value = row.get(field)
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise MgnpError(f"{origin}: field {field!r} must be a list of texts, got {value!r}")
    both = set(row["answers"]) & set(row["wrong_answers"])
    if both:
        raise MgnpError(f"{origin}: {sorted(both)} are right and wrong answers at once")
    part = row.get("split")
    if part is not None and part not in SPLITS:
        raise MgnpError(f"{origin}: split {part!r}; wanted one of {', '.join(SPLITS)}")
    answers = {"score": logit_difference(row["answers"], row["wrong_answers"])}
    pair = PromptPair(
        clean=row["clean"], corrupted=row["corrupted"], answers=answers, origin=origin
    )
    return pair, part
