"""Prompt pairs as text → token arrays; what they must be like is in `checks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mgnp_jax.tasks.answers import AnswerSets, encode_targets, padded
from mgnp_jax.tasks.prefix import Prefix
from mgnp_jax.tasks.tokens import all_token_ids, answer_ids
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptPair:
    """One clean prompt, corrupted ones, and what counts as an answer.

    Attributes:
      clean: text up to the answer.
      corrupted: text of the same token length whose answer differs; or several of them.
      answers: right answers, each with its leading space.
      wrong_answers: wrong answers; all of both are one token each.
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
    """

    rows: list[Row]
    answers: dict[str, list[int]]
    longer: int = 0


def encode(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    prefix: Prefix,
    *,
    first_token: bool = False,
) -> Encoded:
    """The tokens of pairs, usable or not.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs, each with one corrupted prompt.
      prefix: what prompts begin with.
      first_token: score the first token of an answer that has several.
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
    scored = [each[:1] for each in ids] if first_token else ids
    return Encoded(
        rows=[Row(*row) for row in zip(pairs, clean, corrupted, strict=True)],
        answers=dict(zip(answers, scored)),
        longer=sum(len(each) > len(part) for each, part in zip(ids, scored)),
    )


def batch_of(encoded: Encoded, metric: AnswerMetric, prefix: Prefix) -> Batch:
    """Pairs that have no problem as one right-padded batch.

    Args:
      encoded: N pairs.
      metric: how scores are read from the answers.
      prefix: what their prompts begin with.

    Returns:
      A batch of N rows; T is the longest prompt's length.

    Raises:
      MgnpError: if there are none.
    """
    rows, answers, _ = encoded
    if not rows:
        raise MgnpError("there are no prompt pairs; wanted at least one")
    return Batch(
        clean=padded([row.clean for row in rows]),
        corrupted=padded([row.corrupted for row in rows]),
        attention_mask=padded([[1] * len(row.clean) for row in rows]).astype(bool),
        targets=encode_targets(
            answers, [row.pair.sets for row in rows], [row.pair.kl_over for row in rows], metric
        ),
        prefix=prefix.text,
    )
