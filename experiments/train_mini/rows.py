"""Texts as arrays, in batches without end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.train_mini.texts import FIRST, LENGTHS, LONG, SECOND, SHORT, Rng, Text, stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Rows(NamedTuple):
    """Texts of about one length as arrays.

    Attributes:
      tokens: [B, T] int ids.
      real: [B, T − 1] 1 where there is a next token.
      answers: [B, T − 1] weight of predicting it as part of an answer.
    """

    tokens: Any
    real: Any
    answers: Any


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[Text], length: int) -> Rows:
    """Texts as arrays; an answer of n words weighs √n.

    Args:
      tokenizer: of the texts.
      texts: B of them.
      length: T, at least as many as any has.
    """
    tokens = np.zeros((len(texts), length), np.int32)
    real, answers = np.zeros((2, len(texts), length - 1), np.float32)
    for i, parts in enumerate(texts):
        ids = tokenizer(list(parts))["input_ids"]
        at = 0
        for j, part in enumerate(ids):
            tokens[i, at : at + len(part)] = part
            if j % 2:
                answers[i, at - 1 : at - 1 + len(part)] = 1
            at += len(part)
        real[i, : at - 1] = 1
    answers /= np.sqrt(answers.sum(1, keepdims=True))
    return Rows(tokens, real, answers)


def batches(
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerFast,
    size: int,
    first: int = 0,
    second: int = 0,
) -> Iterator[tuple[Rows, Rows]]:
    """Endless batches of short and of long texts.

    Args:
      rng: consumed.
      tokenizer: of the texts.
      size: of both together; every kind has at least one text.
      first: so many batches have `FIRST` for long texts.
      second: those after them have `SECOND`, up to so many batches.
    """

    def rows(kinds: dict[Callable[[Rng], Text], int], length: int) -> Iterator[Rows]:
        counts = {kind: max(1, round(share * size / 100)) for kind, share in kinds.items()}
        texts = {kind: stream(kind, rng) for kind in kinds}
        while True:
            some = [next(texts[kind]) for kind, count in counts.items() for _ in range(count)]
            yield encode(tokenizer, some, length)

    short = rows(SHORT, LENGTHS[0])
    begin, then, long = (rows(kinds, LENGTHS[1]) for kinds in (FIRST, SECOND, LONG))
    for i in itertools.count():
        yield next(short), next(begin if i < first else then if i < second else long)
