"""What a task is, and how a built-in one becomes three splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from mgnp_jax.tasks.metrics import metric_named
from mgnp_jax.tasks.pairs import PromptPair, encode_pairs, is_single_token
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer, checksum

EXTRA_CORRUPTIONS = 3
"""Further corrupted prompts that a training prompt is used with by default, where the task knows
any, so that what closed nodes are given differs each time. Meant against overfitting to the few
clean prompts there are."""

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
      source: by what `load_task` makes it again: a built-in task, or the path of a file; empty
        for prompts that were given from Python.
      seed: of the draw.
      train: split that gates are trained on.
      validation: split that picks the circuit to keep.
      test: split that every reported figure is measured on.
      skipped: pairs that were left out because they cannot be used.
      problems: of these, each with its line.
      note: what a run should say of the prompts; empty if nothing.
      extra_corruptions: that were asked for beside each training prompt's own.
      metric: of one's own prompts, by name; empty where the task has its own.
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
    extra_corruptions: int = 0
    metric: str = ""

    def checksum(self) -> str:
        """SHA-256 of all tokens and answers, by which the same prompts are known again."""
        return checksum([self.train, self.validation, self.test])

    def counts(self) -> dict[str, int]:
        """Clean prompts per split, by name; each may come with several corrupted ones."""
        return {
            name: len(np.unique(getattr(self, name).clean, axis=0))
            for name in ("train", "validation", "test")
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task whose prompts are generated; one in `TASKS` is known to every command.

    Attributes:
      name: as on the command line.
      counts: split sizes.
      pairs: (rng, tokenizer) → a stream of random pairs, each with one corrupted prompt; repeats
        allowed; may end.
      metric: how scores are read from the answers: a function, or its name in `METRICS`.
      note: tokenizer → what a run should say of the prompts; empty if nothing.
    """

    name: str
    counts: Counts
    pairs: Callable[[np.random.Generator, Tokenizer], Iterator[PromptPair]]
    metric: str | AnswerMetric = "logit_difference"
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


def build(
    task: Task, tokenizer: Tokenizer, seed: int, extra_corruptions: int = EXTRA_CORRUPTIONS
) -> TaskData:
    """Draws, splits and encodes a built-in task.

    Args:
      task: the task.
      tokenizer: decides which words can be used.
      seed: of the draw; the same seed gives the same prompts.
      extra_corruptions: further corrupted prompts for each training prompt.

    Returns:
      The splits. If the tokenizer leaves fewer prompts than the task's counts, training
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
    # Training prompts once more with each of their further corrupted ones.
    again = [
        dataclasses.replace(pair, corrupted=text)
        for pair in pairs[:train]
        for text in pair.more_corrupted(extra_corruptions)
    ]
    whole = encode_pairs(tokenizer, again + pairs, metric_named(task.metric))
    train += len(again)
    data = split(task.name, whole, train, validation, source=task.name, seed=seed)
    note = task.note(tokenizer)
    return dataclasses.replace(data, note=note, extra_corruptions=extra_corruptions)


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
