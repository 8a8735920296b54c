"""What a task is, and how a built-in one becomes three splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mgnp_jax.tasks.checks import encode_pairs
from mgnp_jax.tasks.data import TaskData, split
from mgnp_jax.tasks.metrics import metric_named
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.prefix import prefix_of
from mgnp_jax.tasks.tokens import Limits, is_single_token
from mgnp_jax.types import AnswerMetric, MgnpError, Tokenizer

EXTRA_CORRUPTIONS = 3
"""Further corrupted prompts that a training prompt is used with by default, where the task knows
any, so that what closed nodes are given differs each time. Meant against overfitting to the few
clean prompts there are."""

MOST_CORRUPTIONS = 1_000
"""More would fill the memory, whoever asks for them: a circuit's metadata may be a stranger's."""

MOST_PAIRS = 400_000
"""The same of the pairs to train on, where their number was asked for: 100,000 prompts with as many
further corrupted ones as by default."""

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


def distinct_pairs(task: Task, tokenizer: Tokenizer, seed: int, more: int = 0) -> list[PromptPair]:
    """Draws the pairs of all splits, in order, no two with the same clean prompt.

    Args:
      task: the task.
      tokenizer: decides which words can be used.
      seed: of the draw.
      more: pairs beyond those of the splits; they come last.

    Returns:
      As many pairs as the task's counts and `more` add up to, or all that exist if that is fewer.
      A corrupted prompt may be the clean one of another pair.
    """
    total = sum(dataclasses.astuple(task.counts)) + more
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
    task: Task,
    tokenizer: Tokenizer,
    seed: int,
    extra_corruptions: int = EXTRA_CORRUPTIONS,
    *,
    train_prompts: int | None = None,
    prefix: str | None = None,
    limits: Limits | None = None,
) -> TaskData:
    """Draws, splits and encodes a built-in task.

    Args:
      task: the task.
      tokenizer: decides which words can be used.
      seed: of the draw; the same seed gives the same prompts.
      extra_corruptions: further corrupted prompts for each training prompt.
      train_prompts: prompts to train on, None for the task's own count. Whatever it is, the
        other splits are the same: more are drawn after all others, fewer are the first.
      prefix: put before every prompt; None for the checkpoint's own policy.
      limits: what the model can take; None if that is not known.

    Returns:
      The splits. If the tokenizer leaves fewer prompts than the task's counts, training
      and validation keep their counts and the test split takes what is left.

    Raises:
      MgnpError: if fewer prompts exist than training, validation and one test prompt need, or
        than are asked for, or more than `MOST_CORRUPTIONS` corrupted ones or `MOST_PAIRS` are.
    """
    if not 0 <= extra_corruptions <= MOST_CORRUPTIONS:
        raise MgnpError(
            f"extra_corruptions must be from 0 to {MOST_CORRUPTIONS:,}, got {extra_corruptions:,}; "
            "ask for fewer (--extra-corruptions), or for other prompts than the circuit says"
        )
    before = prefix_of(tokenizer, prefix)
    first, held_out = _trained_and_held_out(task, tokenizer, seed, train_prompts, extra_corruptions)
    # Training prompts once more with each of their further corrupted ones.
    again = [
        dataclasses.replace(pair, corrupted=text)
        for pair in first
        for text in pair.more_corrupted(extra_corruptions)
    ]
    first = again + first
    whole = encode_pairs(tokenizer, first + held_out, metric_named(task.metric), before, limits)
    validation = task.counts.validation
    data = split(task.name, whole, len(first), validation, source=task.name, seed=seed)
    asked = {"extra_corruptions": extra_corruptions, "train_prompts": train_prompts}
    return dataclasses.replace(data, note=task.note(tokenizer), prefix=before, **asked)


def _trained_and_held_out(
    task: Task, tokenizer: Tokenizer, seed: int, wanted: int | None, extra_corruptions: int
) -> tuple[list[PromptPair], list[PromptPair]]:
    """Pairs of the training split, and of the other two, which are the same however many it has."""
    train, validation = task.counts.train, task.counts.validation
    if wanted is not None and not 0 < wanted * (1 + extra_corruptions) <= MOST_PAIRS:
        raise MgnpError(
            f"train_prompts must be from 1 to {MOST_PAIRS // (1 + extra_corruptions):,} with "
            f"{extra_corruptions:,} extra_corruptions, got {wanted:,}; ask for other counts "
            "(--train-prompts, --extra-corruptions), or for other prompts than the circuit says"
        )
    wanted = train if wanted is None else wanted
    pairs = distinct_pairs(task, tokenizer, seed, max(wanted - train, 0))
    if len(pairs) <= train + validation:
        raise MgnpError(
            f"task {task.name!r}: this tokenizer knows words for only {len(pairs)} distinct "
            f"prompts, wanted more than {train} + {validation} for training and validation; "
            "use another model, or bring your own prompts with --data FILE"
        )
    own = sum(dataclasses.astuple(task.counts))
    trained = (pairs[:train] + pairs[own:])[:wanted]
    if len(trained) < wanted:
        raise MgnpError(
            f"task {task.name!r}: this tokenizer knows words for {len(trained):,} prompts to train "
            f"on beside those that are held out, got --train-prompts {wanted:,}; ask for no more, "
            "or bring your own prompts with --data FILE"
        )
    return trained, pairs[train:own]


def usable(tokenizer: Tokenizer, words: Sequence[str], at_least: int, what: str) -> list[str]:
    """Keeps the words that are one token with a leading space.

    Args:
      tokenizer: a transformers tokenizer.
      words: candidates; one given twice is kept once.
      at_least: fewer than this is an error.
      what: what the words are, for the message.

    Returns:
      The usable words, in order.

    Raises:
      MgnpError: if too few are left.
    """
    rows = usable_rows(tokenizer, [(word,) for word in dict.fromkeys(words)], at_least, what)
    return [word for (word,) in rows]


def usable_rows(
    tokenizer: Tokenizer, rows: Sequence[tuple[str, ...]], at_least: int, what: str
) -> list[tuple[str, ...]]:
    """Keeps the rows of words of which all are one token with a leading space.

    Args:
      tokenizer: a transformers tokenizer.
      rows: candidates.
      at_least: fewer than this is an error.
      what: what the rows are, for the message.

    Returns:
      The usable rows, in order.

    Raises:
      MgnpError: if too few are left.
    """
    kept = [row for row in rows if all(is_single_token(tokenizer, f" {word}") for word in row)]
    if len(kept) < at_least:
        raise MgnpError(
            f"only {len(kept)} of {len(rows)} {what} are single tokens of this tokenizer, "
            f"wanted at least {at_least}; use another model, or bring your own prompts with "
            "--data FILE"
        )
    return kept
