"""Prompts as a person reads them: text, tokens, answers, and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mgnp_jax.types import Batch, Tokenizer

TOP = 5
"""Most likely tokens that are shown of an answer."""


def text_of(tokenizer: Tokenizer) -> Callable[[int], str]:
    """What gives the text of one token, spaces included.

    Args:
      tokenizer: a transformers tokenizer; None for numbers instead of text.
    """
    if tokenizer is None:
        return str
    return lambda token: tokenizer.decode([token], **_VERBATIM)


_VERBATIM = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


def prompt_texts(tokenizer: Tokenizer, batch: Batch) -> list[str]:
    """The text of clean prompts.

    Args:
      tokenizer: a transformers tokenizer; None for numbers instead of text.
      batch: N prompts.
    """
    rows = _rows(batch.clean, batch)
    return [_text(tokenizer, row) for row in rows]


def _rows(tokens: Any, batch: Batch) -> list[list[int]]:
    lengths = np.asarray(batch.attention_mask).sum(1)
    return [row[:n].tolist() for row, n in zip(np.asarray(tokens), lengths, strict=True)]


def _text(tokenizer: Tokenizer, row: list[int]) -> str:
    if tokenizer is None:
        return " ".join(map(str, row))
    return tokenizer.decode(row, **_VERBATIM)


def shown_examples(
    tokenizer: Tokenizer, batch: Batch, logits: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Prompts with their answers and the tokens that are most likely.

    Args:
      tokenizer: a transformers tokenizer; None for numbers instead of text.
      batch: P prompts.
      logits: [P, V] by whose they are.

    Returns:
      A dict each, see `Evidence.examples`.
    """
    text = text_of(tokenizer)
    answers = batch.targets.answers
    tokens, signs = np.asarray(answers.tokens), np.asarray(answers.signs)
    clean, corrupted = (_rows(part, batch) for part in (batch.clean, batch.corrupted))
    likely = {name: _likely(each, text) for name, each in logits.items()}
    found = []
    for row in range(len(batch)):
        right, wrong = (
            # Whole answers may begin alike.
            [text(int(t)) for t in dict.fromkeys(tokens[row][sign * signs[row] > 0].tolist())]
            for sign in (1, -1)
        )
        found.append(
            {
                "clean": _text(tokenizer, clean[row]),
                "corrupted": _text(tokenizer, corrupted[row]),
                "clean_tokens": [text(t) for t in clean[row]],
                "corrupted_tokens": [text(t) for t in corrupted[row]],
                "answers": right,
                "wrong_answers": wrong,
                "top": {name: each[row] for name, each in likely.items()},
            }
        )
    return found


def _likely(logits: np.ndarray, text: Callable[[int], str]) -> list[list[list[Any]]]:
    """The most likely tokens of each row with their probabilities."""
    chances = np.asarray(jax.nn.softmax(np.asarray(logits, np.float32)))
    order = np.argsort(-chances, axis=1, kind="stable")[:, :TOP]
    return [[[text(int(t)), float(row[t])] for t in top] for row, top in zip(chances, order)]
