"""Prompt pairs as text → token arrays, with every check that a pair must pass.

The built-in tasks, a user's own file and `from_pairs` all go through `encode_pairs`, so all are
held to the same rules: equal lengths, single-token answers, nothing unknown to the tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mgnp_jax.tasks.answers import AnswerSets, encode_targets, padded
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer

MOST_SHOWN = 20


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


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Refuses a model without tokenizer.

    Args:
      tokenizer: a transformers tokenizer, or None.

    Raises:
      MgnpError: if it is None.
    """
    if tokenizer is None:
        raise MgnpError(
            "the model has no tokenizer: its directory lacks tokenizer.json (or vocab.json and "
            "merges.txt); copy them there"
        )


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


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[PromptPair], metric: AnswerMetric) -> Batch:
    """Turns checked text pairs into one right-padded batch.

    Args:
      tokenizer: a transformers tokenizer; opens prompts with what it opens texts with.
      pairs: N pairs, each with one corrupted prompt.
      metric: how scores are read from the answers.

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
    return Batch(
        clean=padded(encoded.clean),
        corrupted=padded(encoded.corrupted),
        attention_mask=padded([[1] * len(row) for row in encoded.clean]).astype(bool),
        targets=encode_targets(
            encoded.answers, [p.sets for p in pairs], [p.kl_over for p in pairs], metric
        ),
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
    sides = ([pair.clean for pair in pairs], [str(pair.corrupted) for pair in pairs])
    used = [part for pair in pairs for of in pair.sets.values() for part in of]
    used += [part for pair in pairs for part in pair.kl_over.values()]
    # Many pairs share one list.
    answers = sorted({text for part in {id(p): p for p in used}.values() for text in part})

    def ids(texts: list[str], special: bool) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=special)["input_ids"] if texts else []

    whole = [ids(side, True) for side in sides]
    opens = tokenizer("")["input_ids"] != []
    bare = [ids(side, False) for side in sides] if opens else whole
    return _Encoded(
        clean=whole[0],
        corrupted=whole[1],
        bare_clean=bare[0],
        bare_corrupted=bare[1],
        answers=dict(zip(answers, ids(answers, False))),
    )


def problems_of(tokenizer: Tokenizer, pairs: Sequence[PromptPair]) -> list[list[str]]:
    """What makes pairs unusable.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs, each with one corrupted prompt.

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
            for name, sets in pair.sets.items()
            if name != "answers"
            for text in dict.fromkeys((*sets[0], *sets[1]))
            if text in bad_answers
        ]
    return found
