"""Prompt pairs as text → token arrays, with every check that a pair must pass.

The built-in tasks and a user's own file go through `encode_pairs`, so both are held to
the same rules: equal lengths, single-token answers, nothing unknown to the tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
    """

    clean: str
    corrupted: str
    answers: Mapping[str, Mapping[str, float]]
    origin: str
    choices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


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
    clean_ids, corrupted_ids, answer_ids = _encoded(tokenizer, pairs)
    problems = [problem for found in problems_of(tokenizer, pairs) for problem in found]
    if problems:
        shown = "\n  ".join(problems[:MOST_SHOWN])
        more = f"\n  … and {len(problems) - MOST_SHOWN} more" * (len(problems) > MOST_SHOWN)
        raise MgnpError(f"{len(problems)} problem(s) in the prompts:\n  {shown}{more}")
    if not pairs:
        raise MgnpError("there are no prompt pairs; wanted at least one")
    readouts = {
        name: _readout(answer_ids, [pair.answers[name] for pair in pairs], kind)
        for name in pairs[0].answers
    }
    return Batch(
        clean=_pad(clean_ids),
        corrupted=_pad(corrupted_ids),
        attention_mask=_pad([[1] * len(row) for row in clean_ids]).astype(bool),
        readouts=readouts,
        judge=judge,
        choices={
            name: _pad([[answer_ids[text][0] for text in pair.choices[name]] for pair in pairs])
            for name in pairs[0].choices
        },
    )


def _encoded(
    tokenizer: Tokenizer, pairs: Sequence[PromptPair]
) -> tuple[list[list[int]], list[list[int]], dict[str, list[int]]]:
    """Clean and corrupted tokens of each pair; tokens of each text that is an answer."""
    clean, corrupted = ([getattr(p, s) for p in pairs] for s in ("clean", "corrupted"))
    clean_ids = tokenizer(clean)["input_ids"] if pairs else []
    corrupted_ids = tokenizer(corrupted)["input_ids"] if pairs else []
    answers = {text for pair in pairs for weights in pair.answers.values() for text in weights}
    answers |= {text for pair in pairs for texts in pair.choices.values() for text in texts}
    return (
        clean_ids,
        corrupted_ids,
        {text: token_ids(tokenizer, text) for text in sorted(answers)},
    )


def problems_of(tokenizer: Tokenizer, pairs: Sequence[PromptPair]) -> list[list[str]]:
    """What makes pairs unusable.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs.

    Returns:
      For each pair its problems, each with the pair's origin; none for a usable pair.
    """
    clean_ids, corrupted_ids, answer_ids = _encoded(tokenizer, pairs)
    return [
        [f"{pair.origin}: {p}" for p in _problems(tokenizer, pair, a, b, answer_ids)]
        for pair, a, b in zip(pairs, clean_ids, corrupted_ids, strict=True)
    ]


def _problems(
    tokenizer: Tokenizer,
    pair: PromptPair,
    clean: list[int],
    corrupted: list[int],
    answer_ids: Mapping[str, list[int]],
) -> list[str]:
    """What makes one pair unusable, in words."""
    found = []
    if len(clean) != len(corrupted):
        found.append(
            f"clean has {len(clean)} tokens and corrupted {len(corrupted)}; both must be "
            f"equally long, position by position: {pair.clean!r} / {pair.corrupted!r}"
        )
    elif clean == corrupted:
        found.append(f"clean and corrupted are the same prompt: {pair.clean!r}")
    unknown = tokenizer.unk_token_id
    for side in ("clean", "corrupted"):
        # Without the tokens that open a prompt: SmolLM2's opening token is also its unknown.
        ids = token_ids(tokenizer, getattr(pair, side))
        if unknown is not None and unknown in ids:
            known = tokenizer.decode([i for i in ids if i != unknown])
            found.append(f"{side} has words the tokenizer does not know; it knows {known!r}")
    for name, weights in pair.answers.items():
        for text in weights:
            ids = answer_ids[text]
            if len(ids) != 1 or ids[0] == unknown:
                parts = tokenizer.convert_ids_to_tokens(ids)
                found.append(
                    f"answer {text!r} ({name}) is {len(ids)} tokens {parts}; an answer must "
                    "be one known token (mind the leading space)"
                )
    return found


def _pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    out = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _readout(
    ids: Mapping[str, list[int]], rows: Sequence[Mapping[str, float]], kind: Any
) -> Readout:
    weights = np.zeros((len(rows), max(map(len, rows))), np.float32)
    for i, row in enumerate(rows):
        weights[i, : len(row)] = list(row.values())
    tokens = _pad([[ids[text][0] for text in row] for row in rows])
    return Readout(tokens=tokens, weights=weights, kind=kind)
