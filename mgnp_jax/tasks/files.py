"""A user's own prompts in a file: JSON Lines, one pair a line, or auto-circuit's JSON layout.

    {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong_answers": [" John"],
     "split": "train"}

    {"prompts": [{"clean": "…", "corrupt": "…", "answers": […], "wrong_answers": […]}, …]}

`corrupted` may be a list of several; `split` is optional.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgnp_jax.tasks.own_pairs import from_pairs
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import MgnpError, Tokenizer


def load_file(
    path: Path,
    tokenizer: Tokenizer,
    seed: int,
    *,
    skip_bad: bool = False,
    metric: str = "logit_difference",
) -> TaskData:
    """Reads prompt pairs from a file.

    Args:
      path: JSON Lines, or one JSON object with `prompts`.
      tokenizer: a transformers tokenizer.
      seed: of the shuffle, where pairs name no split.
      skip_bad: leave out pairs that cannot be used instead of refusing the file.
      metric: how scores are read from the answers, by name.

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
    pairs: list[PromptPair] = []
    # By line, in the file's order.
    problems: dict[str, list[str]] = {}
    for origin, row in _rows(text, path.name):
        problems[origin] = []
        try:
            pairs.append(_parse(row, origin))
        except MgnpError as error:
            problems[origin].append(str(error))
    return from_pairs(
        tokenizer,
        pairs,
        name=path.stem,
        metric=metric,
        seed=seed,
        skip_bad=skip_bad,
        source=str(path.resolve()),
        problems=problems,
    )


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


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _parse(row: Any, origin: str) -> PromptPair:
    if isinstance(row, Exception):
        raise MgnpError(f"{origin}: not JSON ({row})")
    if not isinstance(row, dict):
        raise MgnpError(f"{origin}: wanted an object, got {type(row).__name__}")
    clean, corrupted = row.get("clean"), row.get("corrupted")
    if not isinstance(clean, str) or not clean:
        raise MgnpError(f"{origin}: field 'clean' must be text, got {clean!r}")
    texts: list[Any] = corrupted if isinstance(corrupted, list) and corrupted else [corrupted]
    if not all(isinstance(text, str) and text for text in texts):
        raise MgnpError(
            f"{origin}: field 'corrupted' must be text or a list of texts, got {corrupted!r}"
        )
    for field in ("answers", "wrong_answers"):
        if not _is_texts(row.get(field)):
            raise MgnpError(
                f"{origin}: field {field!r} must be a list of texts, got {row.get(field)!r}"
            )
    part = row.get("split")
    if not isinstance(part, str | None):
        raise MgnpError(f"{origin}: field 'split' must be text, got {part!r}")
    return PromptPair(
        clean=clean,
        corrupted=tuple(texts),
        answers=row["answers"],
        wrong_answers=row["wrong_answers"],
        split=part,
        origin=origin,
    )
