"""What a task is, and how its prompts become three splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from mgnp_jax.tasks.pairs import PromptPair, encode_pairs, is_single_token
from mgnp_jax.types import Batch, MgnpError, Tokenizer, checksum

TWINS = 3
"""Further corrupted prompts that a training prompt is used with, where the task knows any, so that
what closed nodes are given differs each time. Meant against overfitting to the few clean prompts
there are."""

# A stream of prompts that repeats itself this often in a row has nothing new to give.
_PATIENCE = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Prompts per split.

    Attributes:
      train: prompts that gates are trained on.
      validation: prompts that pick the circuit to keep.
      test: prompts that every reported figure is measured on.
    """

    train: int
    validation: int
    test: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's prompts in one tokenizer, padded to one length.

    Attributes:
      name: the task's name.
      source: what `load_task` was given: a built-in task, or the path of a file.
      seed: of the draw.
      train: split that gates are trained on.
      validation: split that picks the circuit to keep.
      test: split that every reported figure is measured on.
      skipped: pairs of a user's file that were left out because they cannot be used.
      problems: of these, each with its line.
      note: what a run should say of the prompts; empty if nothing.
    """

    name: str
    source: str
    seed: int
    train: Batch
    validation: Batch
    test: Batch
    skipped: int = 0
    problems: tuple[str, ...] = ()
    note: str = ""

    def checksum(self) -> str:
        """SHA-256 of all tokens and answers, by which the same prompts are known again."""
        return checksum([self.train, self.validation, self.test])

    def counts(self) -> dict[str, int]:
        """Clean prompts per split, by name; in training each may come with several corrupted."""
        return {
            name: len(np.unique(getattr(self, name).clean, axis=0))
            for name in ("train", "validation", "test")
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A built-in task.

    Attributes:
      name: as on the command line.
      counts: the paper's split sizes.
      kind: what answer weights multiply, see `Readout`.
      judges: readouts that are above 0 exactly when the right answer won; the first that
        the pairs have counts.
      pairs: (rng, tokenizer) → a stream of random pairs, repeats allowed, that may end.
      note: tokenizer → what a run should say of the prompts; empty if nothing.
    """

    name: str
    counts: Counts
    kind: Literal["logits", "probabilities"]
    judges: tuple[str, ...] = ("score",)
    pairs: Callable[[np.random.Generator, Tokenizer], Iterator[PromptPair]]
    note: Callable[[Tokenizer], str] = lambda tokenizer: ""


def distinct_pairs(task: Task, tokenizer: Tokenizer, seed: int) -> list[PromptPair]:
    """Draws the pairs of all splits, in order, no two with the same clean prompt.

    Args:
      task: the task.
      tokenizer: decides which words can be used.
      seed: of the draw.

    Returns:
      As many pairs as the task's counts add up to, or all that exist if that is fewer. A
      corrupted prompt may be the clean one of another pair.
    """
    total = sum(dataclasses.astuple(task.counts))
    rng = np.random.default_rng([seed, *task.name.encode()])
    seen: set[str] = set()
    pairs: list[PromptPair] = []
    repeats = 0
    for pair in task.pairs(rng, tokenizer):
        if len(pairs) == total or repeats == _PATIENCE:
            break
        if pair.clean in seen:
            repeats += 1
            continue
        repeats = 0
        seen.add(pair.clean)
        pairs.append(pair)
    return pairs


def build(task: Task, tokenizer: Tokenizer, seed: int) -> TaskData:
    """Draws, splits and encodes a built-in task.

    Args:
      task: the task.
      tokenizer: decides which words can be used.
      seed: of the draw; the same seed gives the same prompts.

    Returns:
      The splits. If the tokenizer leaves fewer prompts than the paper's counts, training
      and validation keep their counts and the test split takes what is left.

    Raises:
      MgnpError: if fewer prompts exist than training, validation and one test prompt need.
    """
    pairs = distinct_pairs(task, tokenizer, seed)
    train, validation = task.counts.train, task.counts.validation
    if len(pairs) <= train + validation:
        raise MgnpError(
            f"task {task.name!r}: this tokenizer knows words for only {len(pairs)} distinct "
            f"prompts, wanted more than {train} + {validation} for training and validation; "
            "use another model, or bring your own prompts with --data FILE"
        )
    judge = next(name for name in task.judges if name in pairs[0].answers)
    # Training prompts once with each of their corrupted twins.
    again = [
        dataclasses.replace(pair, corrupted=twin) for pair in pairs[:train] for twin in pair.twins()
    ]
    whole = encode_pairs(tokenizer, again + pairs, task.kind, judge)
    train += len(again)
    data = split(task.name, whole, train, validation, source=task.name, seed=seed)
    return dataclasses.replace(data, note=task.note(tokenizer))


def split(
    name: str,
    whole: Batch,
    train: int,
    validation: int,
    *,
    source: str,
    seed: int,
) -> TaskData:
    """Cuts one batch into consecutive splits.

    Args:
      name: the task's name.
      whole: all pairs.
      train: rows of the first split.
      validation: rows of the second; the rest is the test split.
      source: where the prompts are from.
      seed: of the draw.
    """
    return TaskData(
        name=name,
        source=source,
        seed=seed,
        train=whole.take(slice(train)),
        validation=whole.take(slice(train, train + validation)),
        test=whole.take(slice(train + validation, None)),
    )


def usable(tokenizer: Tokenizer, words: tuple[str, ...], at_least: int, what: str) -> list[str]:
    """Keeps the words that are one token with a leading space.

    Args:
      tokenizer: a transformers tokenizer.
      words: candidates.
      at_least: fewer than this is an error.
      what: what the words are, for the message.

    Returns:
      The usable words, in order.

    Raises:
      MgnpError: if too few are left.
    """
    kept = [word for word in words if is_single_token(tokenizer, f" {word}")]
    if len(kept) < at_least:
        raise MgnpError(
            f"only {len(kept)} of {len(words)} {what} are single tokens of this tokenizer, "
            f"wanted at least {at_least}; use another model, or bring your own prompts with "
            "--data FILE"
        )
    return kept
