"""Prompt pairs as text → token arrays, with every check that a pair must pass.

The built-in tasks and a user's own file go through `encode_pairs`, so both are held to
the same rules: equal lengths, single-token answers, nothing unknown to the tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mgnp_jax.types import Batch, MgnpError, Readout, Tokenizer

MOST_SHOWN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptPair:
    """One clean prompt, its corrupted twin, and what counts as an answer.

    Attributes:
      clean: text up to the answer.
      corrupted: text of the same token length whose answer differs.
      answers: readout name → {answer text with its leading space: weight}; every pair of
        a dataset has the same readout names, among them `"score"`.
      origin: where it comes from, for error messages (`"file.jsonl:12"`).
      choices: name of a KL → the answers that it is taken over; the same names and as many
        answers in every pair of a dataset.
      twins: draws other corrupted texts that would do as well; called for training prompts alone,
        which are used with each.
    """

    clean: str
    corrupted: str
    answers: Mapping[str, Mapping[str, float]]
    origin: str
    choices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    twins: Callable[[], Sequence[str]] = tuple


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a piece of text, without the tokens that open a prompt.

    Args:
      tokenizer: a transformers tokenizer.
      text: as it stands inside a prompt, leading space included.

    Returns:
      Token ids.
    """
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def is_single_token(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text is one token, and one the tokenizer knows.

    Args:
      tokenizer: a transformers tokenizer.
      text: as it stands inside a prompt, leading space included.
    """
    ids = token_ids(tokenizer, text)
    return len(ids) == 1 and ids[0] != tokenizer.unk_token_id


def logit_difference(right: Sequence[str], wrong: Sequence[str]) -> dict[str, float]:
    """Weights of mean logit(right answers) − mean logit(wrong answers).

    Args:
      right: right answers, each with its leading space.
      wrong: wrong answers.
    """
    return dict.fromkeys(right, 1 / len(right)) | dict.fromkeys(wrong, -1 / len(wrong))


def encode_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    kind: Literal["logits", "probabilities"],
    judge: str = "score",
) -> Batch:
    """Turns checked text pairs into one right-padded batch.

    Args:
      tokenizer: a transformers tokenizer; opens prompts with what it opens texts with.
      pairs: N pairs.
      kind: what answer weights multiply, see `Readout`.
      judge: readout that decides whether a prompt was answered rightly.

    Returns:
      A batch of N rows; T is the longest prompt's length.

    Raises:
      MgnpError: listing every pair that cannot be used, its origin, what was wanted, what
        was got.
    """
    encoded = _encode(tokenizer, pairs)
    problems = [problem for found in _all_problems(tokenizer, pairs, encoded) for problem in found]
    if problems:
        shown = "\n  ".join(problems[:MOST_SHOWN])
        more = f"\n  … and {len(problems) - MOST_SHOWN} more" * (len(problems) > MOST_SHOWN)
        raise MgnpError(f"{len(problems)} problem(s) in the prompts:\n  {shown}{more}")
    if not pairs:
        raise MgnpError("there are no prompt pairs; wanted at least one")
    readouts = {
        name: _readout(encoded.answers, [pair.answers[name] for pair in pairs], kind)
        for name in pairs[0].answers
    }
    return Batch(
        clean=_pad(encoded.clean),
        corrupted=_pad(encoded.corrupted),
        attention_mask=_pad([[1] * len(row) for row in encoded.clean]).astype(bool),
        readouts=readouts,
        judge=judge,
        choices={
            name: _pad([[encoded.answers[t][0] for t in pair.choices[name]] for pair in pairs])
            for name in pairs[0].choices
        },
    )


class _Encoded(NamedTuple):
    """Tokens of N pairs; `bare` sides lack the tokens that open a prompt."""

    clean: list[list[int]]
    corrupted: list[list[int]]
    bare_clean: list[list[int]]
    bare_corrupted: list[list[int]]
    answers: dict[str, list[int]]


def _encode(tokenizer: Tokenizer, pairs: Sequence[PromptPair]) -> _Encoded:
    # All texts of a kind in one call: a call for each took most of a task's loading.
    sides = ([pair.clean for pair in pairs], [pair.corrupted for pair in pairs])
    used = [m for pair in pairs for m in (*pair.answers.values(), *pair.choices.values())]
    # Many pairs share one mapping.
    answers = sorted({text for m in {id(m): m for m in used}.values() for text in m})

    def ids(texts: list[str], opened: bool) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=opened)["input_ids"] if texts else []

    opened = [ids(side, True) for side in sides]
    opens = tokenizer("")["input_ids"] != []
    bare = [ids(side, False) for side in sides] if opens else opened
    return _Encoded(
        clean=opened[0],
        corrupted=opened[1],
        bare_clean=bare[0],
        bare_corrupted=bare[1],
        answers=dict(zip(answers, ids(answers, False))),
    )


def problems_of(tokenizer: Tokenizer, pairs: Sequence[PromptPair]) -> list[list[str]]:
    """What makes pairs unusable.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs.

    Returns:
      For each pair its problems, each with the pair's origin; none for a usable pair.
    """
    return _all_problems(tokenizer, pairs, _encode(tokenizer, pairs))


def _all_problems(
    tokenizer: Tokenizer, pairs: Sequence[PromptPair], encoded: _Encoded
) -> list[list[str]]:
    unknown = tokenizer.unk_token_id
    answers = {
        text: f"is read as {tokenizer.convert_ids_to_tokens(ids)}"
        for text, ids in encoded.answers.items()
        if len(ids) != 1 or ids[0] == unknown
    }
    return [
        [f"{pair.origin}: {problem}" for problem in _problems(tokenizer, pair, ids, answers)]
        for pair, *ids in zip(pairs, *encoded[:4], strict=True)
    ]


def _problems(
    tokenizer: Tokenizer, pair: PromptPair, ids: list[list[int]], bad_answers: Mapping[str, str]
) -> list[str]:
    """What makes one pair unusable, in words."""
    found = []
    clean, corrupted, *bare = ids
    if len(clean) != len(corrupted):
        found.append(
            f"clean has {len(clean)} tokens and corrupted {len(corrupted)}; both must be "
            f"equally long, position by position: {pair.clean!r} / {pair.corrupted!r}"
        )
    elif clean == corrupted:
        found.append(
            f"clean and corrupted are the same tokens: {pair.clean!r} / {pair.corrupted!r}"
        )
    unknown = tokenizer.unk_token_id
    # Without the tokens that open a prompt: SmolLM2's opening token is also its unknown.
    for side, tokens in zip(("clean", "corrupted"), bare):
        if unknown is not None and unknown in tokens:
            known = tokenizer.decode([i for i in tokens if i != unknown])
            found.append(f"{side} has words the tokenizer does not know; all it reads is {known!r}")
    if bad_answers:
        found += [
            f"answer {text!r} ({name}) {bad_answers[text]}; an answer must be one known token "
            "(mind the leading space)"
            for name, weights in pair.answers.items()
            for text in weights
            if text in bad_answers
        ]
    return found


def _pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    out = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _readout(
    ids: Mapping[str, list[int]], rows: Sequence[Mapping[str, float]], kind: Any
) -> Readout:
    # Many rows share one mapping, which is then written out once.
    distinct = list({id(row): row for row in rows}.values())
    place = {id(row): i for i, row in enumerate(distinct)}
    weights = np.zeros((len(distinct), max(map(len, distinct))), np.float32)
    for i, row in enumerate(distinct):
        weights[i, : len(row)] = list(row.values())
    tokens = _pad([[ids[text][0] for text in row] for row in distinct])
    which = np.array([place[id(row)] for row in rows])
    return Readout(tokens=tokens[which], weights=weights[which], kind=kind)
