"""Prompt pairs as text → token arrays; what they must be like is in `checks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mgnp_jax.tasks.answers import FIRST, SINGLE, WHOLE, AnswerSets, encode_targets, padded
from mgnp_jax.tasks.prefix import Prefix
from mgnp_jax.tasks.tokens import all_token_ids, answer_ids
from mgnp_jax.tasks.whole_answers import readings_of, targets_of
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptPair:
    """One clean prompt, corrupted ones, and what counts as an answer.

    Attributes:
      clean: text up to the answer.
      corrupted: text of the same token length whose answer differs; or several of them.
      answers: right answers, each with its leading space.
      wrong_answers: wrong answers; all of both are one token each, or scored by their first, or
        whole.
      split: `train`, `validation` or `test`; None to be dealt to one.
      origin: where it comes from, for error messages (`"file.jsonl:12"`).
      scores: answers by name of the scores that are read on others than these, `"score"` being
        the task's own; the same names in every pair of a dataset.
      kl_over: name of a KL → the answers that it is taken over; the same names and as many
        answers in every pair of a dataset.
      more_corrupted: draws so many other corrupted texts, or as many as there are; called for
        training prompts alone, which are used with each.
    """

    clean: str
    corrupted: str | Sequence[str]
    answers: Sequence[str]
    wrong_answers: Sequence[str]
    split: str | None = None
    origin: str = ""
    scores: Mapping[str, AnswerSets] = dataclasses.field(default_factory=dict)
    kl_over: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    more_corrupted: Callable[[int], Sequence[str]] = lambda count: ()

    @property
    def sets(self) -> dict[str, AnswerSets]:
        """Right and wrong answers: those that decide accuracy, and those of every score."""
        own = (self.answers, self.wrong_answers)
        return {"answers": own, "score": own, **self.scores}

    @property
    def used(self) -> dict[str, Sequence[str]]:
        """Every answer that is read, by what it is read for."""
        told = {name: (*right, *wrong) for name, (right, wrong) in self.sets.items()}
        # Said of the score, which has the same where it has none of its own.
        return {name: told[name] for name in (*self.scores, "score", "answers")} | {**self.kl_over}


def one_by_one(pairs: Sequence[PromptPair]) -> list[PromptPair]:
    """Every clean prompt with each of its corrupted ones, a pair each.

    Args:
      pairs: any.
    """
    return [
        dataclasses.replace(pair, corrupted=text)
        for pair in pairs
        for text in ([pair.corrupted] if isinstance(pair.corrupted, str) else pair.corrupted)
    ]


class Row(NamedTuple):
    """A pair with one corrupted prompt, and the tokens of both, prefix included."""

    pair: PromptPair
    clean: list[int]
    corrupted: list[int]


class Encoded(NamedTuple):
    """Pairs as tokens.

    Attributes:
      rows: the pairs.
      answers: tokens of every answer that are scored.
      longer: how many answers have more tokens than are scored.
      whole: whether all of them are.
    """

    rows: list[Row]
    answers: dict[str, list[int]]
    longer: int = 0
    whole: bool = False

    def ids_of(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokens of answers; those that are read alike are given once.

        Args:
          texts: of some of the answers.
        """
        return list(dict.fromkeys(tuple(self.answers[text]) for text in texts))


def encode(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    prefix: Prefix,
    *,
    answer: str = SINGLE,
) -> Encoded:
    """The tokens of pairs, usable or not.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs, each with one corrupted prompt.
      prefix: what prompts begin with.
      answer: what is scored of one (`answers.ANSWER`).
    """
    clean, corrupted = (
        [prefix.before(ids) for ids in all_token_ids(tokenizer, texts)]
        for texts in ([pair.clean for pair in pairs], [str(pair.corrupted) for pair in pairs])
    )
    # Many pairs share one list.
    used = [part for pair in pairs for of in pair.sets.values() for part in of]
    used += [part for pair in pairs for part in pair.kl_over.values()]
    answers = sorted({text for part in {id(p): p for p in used}.values() for text in part})
    ids = answer_ids(tokenizer, answers)
    scored = [each[:1] for each in ids] if answer == FIRST else ids
    return Encoded(
        rows=[Row(*row) for row in zip(pairs, clean, corrupted, strict=True)],
        answers=dict(zip(answers, scored)),
        longer=sum(len(each) > len(part) for each, part in zip(ids, scored)),
        whole=answer == WHOLE,
    )


def batch_of(encoded: Encoded, metric: AnswerMetric, prefix: Prefix) -> Batch:
    """Pairs that have no problem as one right-padded batch.

    Args:
      encoded: N pairs.
      metric: how scores are read from the answers.
      prefix: what their prompts begin with.

    Returns:
      A batch of N rows, or more where whole answers are scored; T is the longest row's length.

    Raises:
      MgnpError: if there are none.
    """
    rows, answers = encoded.rows, encoded.answers
    if not rows:
        raise MgnpError("there are no prompt pairs; wanted at least one")
    if encoded.whole:
        return _batch_of_whole(encoded, prefix)
    return Batch(
        clean=padded([row.clean for row in rows]),
        corrupted=padded([row.corrupted for row in rows]),
        attention_mask=padded([[1] * len(row.clean) for row in rows]).astype(bool),
        targets=encode_targets(
            answers, [row.pair.sets for row in rows], [row.pair.kl_over for row in rows], metric
        ),
        prefix=prefix.text,
    )


def _batch_of_whole(encoded: Encoded, prefix: Prefix) -> Batch:
    """The same with a row for every place at which an answer is read."""
    rows = encoded.rows
    readings = readings_of(
        [
            {
                name: (encoded.ids_of(right), encoded.ids_of(wrong))
                for name, (right, wrong) in row.pair.sets.items()
            }
            for row in rows
        ]
    )
    clean = [[*rows[each.number].clean, *each.begun] for each in readings]
    corrupted = [[*rows[each.number].corrupted, *each.begun] for each in readings]
    return Batch(
        clean=padded(clean),
        corrupted=padded(corrupted),
        attention_mask=padded([[1] * len(row) for row in clean]).astype(bool),
        targets=targets_of(readings),
        prefix=prefix.text,
        pair=np.array([each.number for each in readings], np.int32),
    )
