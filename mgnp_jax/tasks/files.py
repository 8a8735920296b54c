"""A user's own prompts: JSON Lines, one pair a line.

    {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong_answers": [" John"],
     "split": "train"}

`split` is optional; pairs without one are shuffled by the seed and cut 50 / 25 / 25.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.tasks.pairs import MOST_SHOWN, PromptPair, encode_pairs, logit_difference
from mgnp_jax.tasks.task import TaskData, split
from mgnp_jax.types import MgnpError, Tokenizer

SPLITS = ("train", "validation", "test")


def load_file(path: Path, tokenizer: Tokenizer, seed: int) -> TaskData:
    """Reads prompt pairs from a JSON Lines file.

    Args:
      path: the file.
      tokenizer: a transformers tokenizer.
      seed: of the shuffle, where lines name no split.

    Returns:
      The splits, named after the file.

    Raises:
      MgnpError: naming every bad line, what was wanted and what was got.
    """
    if not path.is_file():
        raise MgnpError(f"data file {path} does not exist; wanted a JSON Lines file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise MgnpError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    pairs: list[PromptPair] = []
    splits: list[str | None] = []
    problems: list[str] = []
    first: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            pair, part = _parse(line, f"{path.name}:{number}")
        except MgnpError as error:
            problems.append(str(error))
            continue
        # A prompt that is trained on and tested on would make the figures mean nothing.
        if pair.clean in first:
            problems.append(f"{pair.origin}: the clean prompt is that of {first[pair.clean]}")
        first.setdefault(pair.clean, pair.origin)
        pairs.append(pair)
        splits.append(part)
    if len({part is None for part in splits}) > 1:
        problems.append(f"{path.name}: some lines have a split and some not; wanted all or none")
    if problems:
        shown = "\n  ".join(problems[:MOST_SHOWN])
        raise MgnpError(f"{len(problems)} bad line(s) in {path}:\n  {shown}")
    if len(pairs) < len(SPLITS):
        raise MgnpError(f"{path} has {len(pairs)} prompt pairs; wanted at least {len(SPLITS)}")
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
    return split(path.stem, whole, train, validation, source=source, seed=seed)


def _parse(line: str, origin: str) -> tuple[PromptPair, str | None]:
    try:
        row: Any = json.loads(line)
    # ValueError covers malformed text and numbers too long to read.
    except (ValueError, RecursionError) as error:
        raise MgnpError(f"{origin}: not JSON ({error})") from None
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
