"""A user's own prompt pairs, from Python or from a file → three splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mgnp_jax.tasks.metrics import metric_named
from mgnp_jax.tasks.pairs import (
    PromptPair,
    check_tokenizer,
    encode_pairs,
    one_by_one,
    problems_of,
)
from mgnp_jax.tasks.task import TaskData, split
from mgnp_jax.types import AnswerMetric, MgnpError, Tokenizer

SPLITS = ("train", "validation", "test")


def from_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    *,
    name: str = "pairs",
    metric: str | AnswerMetric = "logit_difference",
    seed: int = 0,
    skip_bad: bool = False,
    source: str = "",
    problems: Mapping[str, Sequence[str]] | None = None,
) -> TaskData:
    """Makes a task of prompt pairs.

    Pairs without a split are shuffled by the seed and dealt 50 / 25 / 25 to training, validation
    and test; pairs of one clean prompt stay together.

    Args:
      tokenizer: the model's.
      pairs: at least three different clean prompts; one may come with several corrupted ones
        or several answers, in one pair or in several.
      name: of the task.
      metric: how scores are read from the answers: a function, or its name in `METRICS`.
      seed: of the shuffle.
      skip_bad: leave out pairs that cannot be used instead of refusing all.
      source: path of the file that they are from; empty if from none.
      problems: what is known already to be wrong, by origin; in the order of the file.

    Returns:
      The splits.

    Raises:
      MgnpError: naming every bad pair, what was wanted and what was got.
    """
    check_tokenizer(tokenizer)
    named = [
        pair if pair.origin else dataclasses.replace(pair, origin=f"{name}[{i}]")
        for i, pair in enumerate(pairs)
    ]
    known = {origin: list(found) for origin, found in (problems or {}).items()}
    for origin, found in _problems(tokenizer, named).items():
        known.setdefault(origin, []).extend(found)
    bad = {origin: found for origin, found in known.items() if found}
    told = tuple(problem for found in bad.values() for problem in found)
    where = source or name
    if bad and not skip_bad:
        shown = "\n  ".join(told)
        raise MgnpError(
            f"{len(told)} problem(s) in {len(bad)} bad line(s) in {where}:\n  {shown}\n"
            "Mend these lines, or leave them out (--skip-bad, or skip_bad=True)."
        )
    good = [pair for pair in named if pair.origin not in bad]
    ordered, train, validation = _dealt(good, seed, where)
    whole = encode_pairs(tokenizer, ordered, metric_named(metric))
    data = split(name, whole, train, validation, source=source, seed=seed)
    named_metric = metric if isinstance(metric, str) else metric.__name__
    return dataclasses.replace(data, skipped=len(bad), problems=told, metric=named_metric)


def _problems(tokenizer: Tokenizer, pairs: Sequence[PromptPair]) -> dict[str, list[str]]:
    """What makes pairs unusable, by origin."""
    found: dict[str, list[str]] = {pair.origin: _in_form(pair, pairs[0]) for pair in pairs}
    single = one_by_one([pair for pair in pairs if not found[pair.origin]])
    for pair, each in zip(single, problems_of(tokenizer, single)):
        found[pair.origin] += [problem for problem in each if problem not in found[pair.origin]]
    first: dict[tuple[object, ...], str] = {}
    splits: dict[str, tuple[str | None, str]] = {}
    for pair in single:
        if found[pair.origin]:
            continue
        what = (pair.clean, pair.corrupted, *map(tuple, pair.sets["score"]))
        if what in first:
            found[pair.origin].append(f"{pair.origin}: the same pair as {first[what]}")
            continue
        first[what] = pair.origin
        # A prompt that is trained on and tested on would make the figures mean nothing.
        part, other = splits.setdefault(pair.clean, (pair.split, pair.origin))
        if part != pair.split:
            found[pair.origin].append(
                f"{pair.origin}: split {pair.split!r}, but the same clean prompt is in {part!r} "
                f"at {other}; wanted one split for all of its pairs"
            )
    return found


def _in_form(pair: PromptPair, first: PromptPair) -> list[str]:
    """What is wrong with a pair whatever the tokenizer."""
    said = []
    if not pair.clean or not pair.corrupted or not all(pair.corrupted):
        said.append("clean and corrupted must not be empty")
    for name, (right, wrong) in pair.sets.items():
        both = sorted(set(right) & set(wrong))
        if both:
            said.append(f"{both} are right and wrong answers at once ({name})")
    if not pair.answers or not pair.wrong_answers:
        said.append("answers and wrong_answers must have at least one each")
    if pair.split not in (None, *SPLITS):
        said.append(f"split {pair.split!r}; wanted one of {', '.join(SPLITS)}")
    if set(pair.scores) != set(first.scores):
        said.append(f"scores are {sorted(pair.scores)}, the first pair's {sorted(first.scores)}")
    lengths, wanted = ({n: len(t) for n, t in p.kl_over.items()} for p in (pair, first))
    if lengths != wanted:
        said.append(f"kl_over has {lengths} answers, the first pair's {wanted}")
    return [f"{pair.origin}: {text}" for text in said]


def _dealt(pairs: Sequence[PromptPair], seed: int, where: str) -> tuple[list[PromptPair], int, int]:
    """Pairs in the order of their splits, and how many rows the first two have."""
    together: dict[str, list[PromptPair]] = {}
    for pair in pairs:
        together.setdefault(pair.clean, []).append(pair)
    groups = [one_by_one(group) for group in together.values()]
    parts = [group[0].split for group in groups]
    if len({part is None for part in parts}) > 1:
        raise MgnpError(f"{where}: some pairs have a split and some not; wanted all or none")
    if len(groups) < len(SPLITS):
        raise MgnpError(
            f"{where} has {len(groups)} usable clean prompts; wanted at least {len(SPLITS)}, one "
            "for each of training, validation and test"
        )
    if parts[0] is None:
        order = np.random.default_rng(seed).permutation(len(groups))
        train, validation = max(1, len(groups) // 2), max(1, len(groups) // 4)
    else:
        rank = [SPLITS.index(part or "") for part in parts]
        order = np.argsort(rank, kind="stable")
        train, validation = rank.count(0), rank.count(1)
        if not (train and validation and rank.count(2)):
            raise MgnpError(
                f"{where}: splits have {train} / {validation} / {rank.count(2)} clean prompts; "
                f"each of {', '.join(SPLITS)} needs at least one"
            )
    ordered = [groups[i] for i in order]
    rows = [sum(map(len, part)) for part in (ordered[:train], ordered[train:][:validation])]
    return [pair for group in ordered for pair in group], rows[0], rows[1]
