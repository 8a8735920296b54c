"""Rows of prompt files, ours and other projects', in the words of ours.

A file has one layout, known by the fields of its rows. What is scored is what its project scores:
of token ids (EAP-IG) and of labels without a leading space (MIB) nothing else would be comparable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mgnp_jax.files import shown
from mgnp_jax.tasks.greater_than import DIGITS, tens_digit, two_digits
from mgnp_jax.tasks.tokens import answer_ids, is_single_token
from mgnp_jax.types import Tokenizer

FIELDS = ("clean", "corrupted", "answers", "wrong_answers")
OPTIONAL = "split"


class Unusable(ValueError):
    """A row that cannot be meant; the message says why.

    Attributes:
      cause: the same words for the same kind of thing.
    """

    def __init__(self, told: str, cause: str = "a field that is missing or of another type"):
        """Says what is wrong with a row.

        Args:
          told: of it.
          cause: what kind of thing that is.
        """
        super().__init__(told)
        self.cause = cause


class Layout(NamedTuple):
    """How a project writes its rows.

    Attributes:
      project: whose; empty for ours.
      fields: by which its rows are known.
      read: (row with all fields, tokenizer) → `FIELDS`.
      note: first row, in our words → what a run should say of such files; empty if nothing.
      optional: fields that it has besides and that change nothing.
    """

    project: str
    fields: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Tokenizer], Mapping[str, Any]]
    note: Callable[[Mapping[str, Any]], str] = lambda first: ""
    optional: tuple[str, ...] = ()


def layout_of(rows: Sequence[Any]) -> Layout | None:
    """The layout of a file, of which at least one row has all the fields.

    Args:
      rows: of the file.
    """
    known = [row.keys() for row in rows if isinstance(row, Mapping)]
    fitting = (each for each in LAYOUTS if any({*each.fields} <= keys for keys in known))
    return next(fitting, None)


def in_our_words(row: Any, layout: Layout, tokenizer: Tokenizer) -> Any:
    """One row with the fields of ours, or what makes it unusable.

    Args:
      row: as read.
      layout: of the file.
      tokenizer: the model's.
    """
    if not layout.project or not isinstance(row, Mapping):
        return row
    lacking = [shown(field) for field in layout.fields if row.get(field) in (None, "")]
    if lacking:
        return Unusable(f"lacks {', '.join(lacking)}, which rows of {layout.project} have")
    try:
        found = dict(layout.read(row, tokenizer))
    except Unusable as error:
        return error
    return found | ({OPTIONAL: row[OPTIONAL]} if OPTIONAL in row else {})


def _auto_circuit(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    return {"corrupted" if name == "corrupt" else name: value for name, value in row.items()}


def _feature_circuits(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    return {
        "clean": row["clean_prefix"],
        "corrupted": row["patch_prefix"],
        "answers": [row["clean_answer"]],
        "wrong_answers": [row["patch_answer"]],
    }


def _token_ids(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    return {
        "clean": row["clean"],
        "corrupted": row["corrupted"],
        "answers": _texts(row["correct_idx"], "correct_idx", tokenizer),
        "wrong_answers": _texts(row["incorrect_idx"], "incorrect_idx", tokenizer),
    }


def _texts(value: Any, field: str, tokenizer: Tokenizer) -> list[str]:
    """The texts of a token id, or of a list of them; a table's cell has them as text."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Unusable(f"field {field!r} must be a token id, got {shown(value)}") from None
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(each) is int and 0 <= each < len(tokenizer) for each in ids):
        raise Unusable(
            f"field {field!r} must be a token id below {len(tokenizer):,} or a list of such, got "
            f"{shown(value)}: is the file of another tokenizer?"
        )
    texts = [tokenizer.decode([each]) for each in ids]
    for each, text, read in zip(ids, texts, answer_ids(tokenizer, texts)):
        if read != [each]:
            raise Unusable(f"token {each} ({field}) is {shown(text)}, which is read as another one")
    return texts


def _told_of_ids(first: Mapping[str, Any]) -> str:
    right, wrong = (", ".join(map(shown, first[name])) for name in FIELDS[2:])
    return (
        f"Answers are token ids, read with this model's tokenizer: of the first prompt {right} is "
        f"right and {wrong} wrong. If these make no sense, the file is of another tokenizer"
    )


def _greater_than(field: str) -> Callable[[Mapping[str, Any], Tokenizer], Mapping[str, Any]]:
    def read(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
        said, clean = str(row[field]), str(row["clean"])
        years = [year for year in re.findall(r"\d{4}", clean) if int(year[2:]) == _number(said)]
        if not years:
            raise Unusable(
                f"field {field!r} must be the last two digits of a year in the clean prompt, got "
                f"{shown(row[field])} for {shown(clean)}"
            )
        start = int(years[0][2:])
        whole = all(is_single_token(tokenizer, text) for text in DIGITS)
        scored = (two_digits if whole else tens_digit)(start)
        if not scored.answers or not scored.wrong_answers:
            left = "later" if not scored.answers else "earlier"
            raise Unusable(f"no {left} year than {years[0]} can be told by this tokenizer's token")
        return {
            "clean": clean,
            "corrupted": row["corrupted"],
            "answers": list(scored.answers),
            "wrong_answers": list(scored.wrong_answers),
        }

    return read


def _number(text: str) -> int:
    """The last two digits of a year that is written in full or as these."""
    return int(text[-2:]) if re.fullmatch(r"\d{1,4}", text) else -1


def _told_of_years(first: Mapping[str, Any]) -> str:
    return (
        "Later years are right, earlier ones wrong; EAP-IG and MIB score them with --metric "
        "probability_difference"
    )


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that is an object with a prompt."""
    part = row[name]
    if not isinstance(part, Mapping) or not isinstance(part.get("prompt"), str):
        raise Unusable(f"field {name!r} must be an object with a 'prompt', got {shown(part)}")
    return part


def _mib_ioi(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    names = row["metadata"]
    wanted = ("indirect_object", "subject")
    if not isinstance(names, Mapping) or not all(isinstance(names.get(n), str) for n in wanted):
        raise Unusable(f"field 'metadata' must have {' and '.join(wanted)}, got {shown(names)}")
    right, wrong = (f" {names[name]}" for name in wanted)
    corrupted = _part(row, "s2_io_flip_counterfactual")["prompt"]
    return _mib(row["prompt"], corrupted, right, wrong)


def _mib_choice(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    other = _part(row, "symbol_counterfactual")
    return _mib(row["prompt"], other["prompt"], _label(row), _label(other))


def _label(row: Mapping[str, Any]) -> str:
    """The label of the right choice, without a space before it, as MIB scores it."""
    choices, key = row.get("choices"), row.get("answerKey")
    labels = choices.get("label") if isinstance(choices, Mapping) else None
    if not isinstance(labels, list) or type(key) is not int or not 0 <= key < len(labels):
        raise Unusable(
            "'choices' must have a list 'label' and 'answerKey' be a place in it, got "
            f"{shown(choices)} and {shown(key)}"
        )
    return str(labels[key])


def _mib_arithmetic(row: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    other = _part(row, "random_counterfactual")
    return _mib(row["prompt"], other["prompt"], str(row["label"]), str(other.get("label")))


def _mib(clean: Any, corrupted: Any, right: str, wrong: str) -> Mapping[str, Any]:
    return dict(zip(FIELDS, (clean, corrupted, [right], [wrong]), strict=True))


LAYOUTS = (
    Layout("", FIELDS, lambda row, tokenizer: row, optional=(OPTIONAL,)),
    Layout("auto-circuit", ("clean", "corrupt", "answers", "wrong_answers"), _auto_circuit),
    Layout(
        "feature-circuits",
        ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer"),
        _feature_circuits,
        optional=("case",),
    ),
    Layout(
        "EAP-IG", ("clean", "corrupted", "correct_idx", "incorrect_idx"), _token_ids, _told_of_ids
    ),
    *(
        Layout(project, ("clean", "corrupted", field), _greater_than(field), _told_of_years)
        for project, field in (("EAP-IG", "label"), ("MIB", "year"), ("EAP-IG", "correct_idx"))
    ),
    Layout("MIB", ("prompt", "metadata", "s2_io_flip_counterfactual"), _mib_ioi),
    Layout("MIB", ("prompt", "choices", "answerKey", "symbol_counterfactual"), _mib_choice),
    Layout(
        "MIB", ("prompt", "label", "random_counterfactual"), _mib_arithmetic, optional=("operator",)
    ),
)
"""Every layout that is read; the first that fits a file is taken."""
