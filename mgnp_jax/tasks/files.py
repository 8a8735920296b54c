"""A user's own prompts in a file: JSON Lines, one pair a line; or a table, a row each.

    {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong_answers": [" John"],
     "split": "train"}

`corrupted` may be a list of several; `split` is optional. A JSON array of such objects is read,
too, as are CSV with these columns (a cell may be a JSON list), and the rows of auto-circuit,
EAP-IG, feature-circuits and MIB (`tasks.layouts`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.tasks.answers import SINGLE
from mgnp_jax.tasks.data import TaskData
from mgnp_jax.tasks.json_rows import NAMED, read_rows
from mgnp_jax.tasks.layouts import FIELDS, OPTIONAL, Unusable, in_our_words
from mgnp_jax.tasks.own_pairs import from_pairs
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.problems import Problem
from mgnp_jax.tasks.tokens import Limits
from mgnp_jax.types import Tokenizer


def load_file(
    path: Path,
    tokenizer: Tokenizer,
    seed: int,
    *,
    skip_bad: bool = False,
    metric: str = "logit_difference",
    answer: str = SINGLE,
    prefix: str | None = None,
    limits: Limits | None = None,
    all_test: bool = False,
) -> TaskData:
    """Reads prompt pairs from a file.

    Args:
      path: JSON Lines, a JSON array, one JSON object with `prompts`, or CSV.
      tokenizer: a transformers tokenizer.
      seed: of the shuffle, where pairs name no split.
      skip_bad: leave out pairs that cannot be used instead of refusing the file.
      metric: how scores are read from the answers, by name.
      answer: what is scored of an answer, see `from_pairs`.
      prefix: put before every prompt; None for the checkpoint's own policy.
      limits: what the model can take; None if that is not known.
      all_test: pairs without a split are all test prompts.

    Returns:
      The splits, named after the file; fields that are not read are named in its note.

    Raises:
      MgnpError: with the bad lines, what was wanted and what was got.
    """
    pairs, problems, notes = _read(path, tokenizer)
    data = from_pairs(
        tokenizer,
        pairs,
        name=path.stem,
        metric=metric,
        answer=answer,
        seed=seed,
        skip_bad=skip_bad,
        prefix=prefix,
        limits=limits,
        all_test=all_test,
        source=str(path.resolve()),
        problems=problems,
    )
    return dataclasses.replace(data, note="\n".join(filter(None, (*notes, data.note))))


def _read(
    path: Path, tokenizer: Tokenizer
) -> tuple[list[PromptPair], dict[str, list[Problem]], list[str]]:
    """The pairs of a file; what is wrong with others, by line in its order; what is to be said."""
    rows, layout = read_rows(path)
    known = {*layout.fields, *layout.optional, OPTIONAL}
    pairs: list[PromptPair] = []
    problems: dict[str, list[Problem]] = {}
    others: Counter[str] = Counter()
    notes: list[str] = []
    for origin, given in rows:
        row = in_our_words(given, layout, tokenizer)
        wrong = _wrong(row)
        problems[origin] = [Problem(origin, *wrong)] if wrong else []
        if not wrong:
            notes = notes or [layout.note(row)]
            others.update(given.keys() - known)
            pairs.append(_pair(row, origin))
    return pairs, problems, [*notes, _note(path.name, others, sorted(known))]


def _pair(row: Mapping[str, Any], origin: str) -> PromptPair:
    texts = row["corrupted"]
    return PromptPair(
        clean=row["clean"],
        corrupted=tuple(texts) if isinstance(texts, list) else (texts,),
        answers=row["answers"],
        wrong_answers=row["wrong_answers"],
        split=row.get(OPTIONAL),
        origin=origin,
    )


def _note(name: str, others: Counter[str], known: Sequence[str]) -> str:
    """Names fields that are not read; empty if there are none."""
    if not others:
        return ""
    told = [f"{shown(field)} ({count:,} lines)" for field, count in sorted(others.items())]
    more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    read = ", ".join(known)
    return f"Fields of {name} that are not read: {', '.join(told[:NAMED])}{more}; known are {read}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _got(row: Mapping[str, Any], field: str) -> str:
    """What there is of a field; where there is none, the fields that are not read."""
    if field in row:
        return f"got {shown(row[field])}"
    others = [shown(name) for name in row if name not in {*FIELDS, OPTIONAL}]
    more = f" (not read: {', '.join(others[:NAMED])})" if others else ""
    return f"and is missing{more}"


def _wrong(row: Any) -> tuple[str, str] | None:
    """What is wrong with a row's form: cause and words."""
    if isinstance(row, Unusable):
        return row.cause, str(row)
    if not isinstance(row, Mapping):
        return "not an object", f"wanted an object, got {type(row).__name__}"
    cause = "a field that is missing or of another type"
    clean, corrupted = row.get("clean"), row.get("corrupted")
    if not isinstance(clean, str) or not clean:
        return cause, f"field 'clean' must be text, {_got(row, 'clean')}"
    if not (corrupted and isinstance(corrupted, str)) and not (
        _is_texts(corrupted) and all(corrupted or ())
    ):
        wanted = "field 'corrupted' must be text or a list of texts"
        return cause, f"{wanted}, {_got(row, 'corrupted')}"
    for field in ("answers", "wrong_answers"):
        if not _is_texts(row.get(field)):
            return cause, f"field {field!r} must be a list of texts, {_got(row, field)}"
    if not isinstance(row.get(OPTIONAL), str | None):
        return cause, f"field {OPTIONAL!r} must be text, got {shown(row[OPTIONAL])}"
    return None
