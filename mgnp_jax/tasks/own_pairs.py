"""A user's own prompt pairs, from Python or from a file → three splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.tasks.answers import SINGLE, check_answer
from mgnp_jax.tasks.checks import problems_of
from mgnp_jax.tasks.data import TaskData, split
from mgnp_jax.tasks.metrics import metric_named
from mgnp_jax.tasks.pairs import Encoded, PromptPair, Row, batch_of, encode, one_by_one
from mgnp_jax.tasks.prefix import Prefix, prefix_of
from mgnp_jax.tasks.problems import (
    Problem,
    many,
    summary,
    unreadable,
)
from mgnp_jax.tasks.tokens import Limits, check_tokenizer
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer

SPLITS = ("train", "validation", "test")

LONGEST = 2**20
"""Characters of a text; a longer one is no prompt."""


def from_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    *,
    name: str = "pairs",
    metric: str | AnswerMetric = "logit_difference",
    answer: str = SINGLE,
    seed: int = 0,
    skip_bad: bool = False,
    prefix: str | None = None,
    limits: Limits | None = None,
    all_test: bool = False,
    source: str = "",
    problems: Mapping[str, Sequence[Problem]] | None = None,
) -> TaskData:
    """Makes a task of prompt pairs; those of one clean prompt stay in one split.

    Args:
      tokenizer: the model's.
      pairs: at least three different clean prompts.
      name: of the task.
      metric: how scores are read from the answers: a function, or its name in `METRICS`.
      answer: `"single"` if every answer must be one token, `"first"` to score the first token of
        one that has several, as EAP-IG does, `"whole"` for the log-probability of all of them,
        put behind the prompts (`metrics.log_probability`, `whole_answers`).
      seed: of the shuffle by which pairs that name no split are dealt 50 / 25 / 25.
      skip_bad: leave out pairs that cannot be used instead of refusing all.
      prefix: put before every prompt; `"none"` for nothing, None for the model's own.
      limits: the model's config; what it cannot take is then named pair by pair.
      all_test: pairs without a split are all test prompts, and one is enough.
      source: path of the file that they are from; empty if from none.
      problems: what is known already to be wrong, by origin; in the order of the file.

    Returns:
      The splits.

    Raises:
      MgnpError: with the bad pairs, what was wanted and what was got.
    """
    check_tokenizer(tokenizer)
    check_answer(answer, metric)
    before = prefix_of(tokenizer, prefix)
    found = {origin: list(said) for origin, said in (problems or {}).items()}
    encoded = _usable(tokenizer, _with_origins(pairs, name), before, limits, found, answer)
    told = [problem for said in found.values() for problem in said]
    bad = sum(map(bool, found.values()))
    where = source or name
    if told and not skip_bad:
        raise MgnpError(_refused(told, bad, where, name))
    try:
        rows, train, validation = _dealt(encoded.rows, seed, all_test)
    except MgnpError as error:
        left_out = f". Left out are {many(bad, 'line')}:{summary(told, name)}" if told else ""
        raise MgnpError(f"{where} {error}{left_out}") from None
    whole = batch_of(encoded._replace(rows=rows), metric_named(metric), before)
    data = split(name, whole, train, validation, source=source, seed=seed)
    said = {"metric": getattr(metric, "__name__", metric), "answer": answer, "prefix": before}
    note = _scored(encoded, whole)
    return dataclasses.replace(data, skipped=bad, problems=tuple(told), note=note, **said)


def _scored(encoded: Encoded, batch: Batch) -> str:
    """What is to be said of how answers of several tokens are scored; empty if there are none."""
    if encoded.whole:
        read = f"{many(batch.pairs, 'pair')} in {many(len(batch), 'row')}"
        return f"Answers are scored whole: {read}, each read where a token of an answer follows"
    longer = f"Of {many(encoded.longer, 'answer')} with several tokens the first is scored"
    return longer if encoded.longer else ""


def _refused(told: Sequence[Problem], bad: int, where: str, name: str) -> str:
    return (
        f"{many(len(told), 'problem')} in {many(bad, 'bad line')} in {where}:"
        f"{summary(told, name)}\n"
        "Mend these lines, or leave them out (--skip-bad, or skip_bad=True)."
    )


def _with_origins(pairs: Sequence[PromptPair], name: str) -> list[PromptPair]:
    """Pairs that can all be named, each by a name of its own."""
    times = Counter(pair.origin for pair in pairs)
    return [
        pair
        if pair.origin and times[pair.origin] == 1
        else dataclasses.replace(pair, origin=f"{pair.origin or name}[{i}]")
        for i, pair in enumerate(pairs)
    ]


def _usable(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    prefix: Prefix,
    limits: Limits | None,
    found: dict[str, list[Problem]],
    answer: str,
) -> Encoded:
    """Pairs that can be used, as tokens; what is wrong with the others is added to `found`."""
    for pair in pairs:
        found.setdefault(pair.origin, []).extend(_in_form(pair, pairs[0]))
    single = one_by_one([pair for pair in pairs if not found[pair.origin]])
    encoded = encode(tokenizer, single, prefix, answer=answer)
    for row, said in zip(encoded.rows, problems_of(tokenizer, encoded, prefix, limits)):
        own = found[row.pair.origin]
        own += [problem for problem in said if problem not in own]
    first: dict[tuple[object, ...], str] = {}
    splits: dict[tuple[int, ...], tuple[str | None, str]] = {}
    for pair, clean, corrupted in encoded.rows:
        if found[pair.origin]:
            continue
        # By tokens, which is what a model sees of them.
        what = (tuple(clean), tuple(corrupted), *map(frozenset, pair.sets["score"]))
        if what in first:
            told = f"the same pair as {first[what]}"
            found[pair.origin].append(Problem(pair.origin, "a pair given twice", told))
            continue
        first[what] = pair.origin
        # A prompt that is trained on and tested on would make the figures mean nothing.
        part, other = splits.setdefault(tuple(clean), (pair.split, pair.origin))
        if part != pair.split:
            told = (
                f"split {pair.split!r}, but the same clean prompt is in {part!r} at {other}; "
                "wanted one split for all of its pairs"
            )
            found[pair.origin].append(Problem(pair.origin, "one prompt in two splits", told))
    rows = [row for row in encoded.rows if not found[row.pair.origin]]
    return encoded._replace(rows=rows)


def _in_form(pair: PromptPair, first: PromptPair) -> list[Problem]:
    """What is wrong with a pair whatever the tokenizer."""
    lists = [*(side for sides in pair.sets.values() for side in sides), *pair.kl_over.values()]
    text = next((part for part in lists if isinstance(part, str)), None)
    if text is not None:
        told = f"answers must be a list of texts, got {shown(text)}"
        return [Problem(pair.origin, "answers that are no list", told)]
    texts = [pair.clean, *([pair.corrupted] if isinstance(pair.corrupted, str) else pair.corrupted)]
    texts += [text for part in lists for text in part]
    said = []
    if not all(isinstance(text, str) for text in texts):
        told = f"prompts and answers must be text, got {shown(texts)}"
        return [Problem(pair.origin, "what is no text", told)]
    if any(map(unreadable, texts)):
        bad = next(filter(unreadable, texts))
        said.append(("text that is none", f"{shown(bad)} has half of a surrogate pair; mend it"))
    longest = max(map(len, texts))
    if longest > LONGEST:
        cause = "text that is no prompt"
        said.append((cause, f"a text has {longest:,} characters; at most {LONGEST:,} are read"))
    if not pair.clean or not pair.corrupted or not all(pair.corrupted):
        said.append(("an empty prompt", "clean and corrupted must not be empty"))
    for name, (right, wrong) in pair.sets.items():
        both = sorted(set(right) & set(wrong))
        if both:
            cause = "an answer that is right and wrong"
            said.append((cause, f"{shown(both)} are right and wrong answers at once ({name})"))
    if not pair.answers or not pair.wrong_answers:
        said.append(("no answers", "answers and wrong_answers must have at least one each"))
    if pair.split not in (None, *SPLITS):
        told = f"split {shown(pair.split)}; wanted one of {', '.join(SPLITS)}"
        said.append(("a split of another name", told))
    if set(pair.scores) != set(first.scores):
        told = f"scores are {sorted(pair.scores)}, the first pair's {sorted(first.scores)}"
        said.append(("other scores than the first pair's", told))
    lengths, wanted = ({n: len(t) for n, t in p.kl_over.items()} for p in (pair, first))
    if lengths != wanted:
        told = f"kl_over has {lengths} answers, the first pair's {wanted}"
        said.append(("another kl_over than the first pair's", told))
    return [Problem(pair.origin, cause, detail) for cause, detail in said]


def _dealt(rows: Sequence[Row], seed: int, all_test: bool) -> tuple[list[Row], int, int]:
    """Rows in the order of their splits, and how many the first two have."""
    together: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        together.setdefault(tuple(row.clean), []).append(row)
    groups = list(together.values())
    parts = [group[0].pair.split for group in groups]
    wanted = 1 if all_test else len(SPLITS)
    if len({part is None for part in parts}) > 1:
        raise MgnpError("has pairs with a split and pairs without; wanted all or none")
    if len(groups) < wanted:
        raise MgnpError(
            f"has {len(groups)} usable clean prompts; wanted at least {wanted}"
            + ("" if all_test else ", one for each of training, validation and test")
        )
    if parts[0] is None and all_test:
        return [*rows], 0, 0
    if parts[0] is None:
        order = np.random.default_rng(seed).permutation(len(groups))
        train, validation = max(1, len(groups) // 2), max(1, len(groups) // 4)
    else:
        rank = [SPLITS.index(part or "") for part in parts]
        order = np.argsort(rank, kind="stable")
        train, validation = rank.count(0), rank.count(1)
        counts = (train, validation, rank.count(2))
        if not all(counts[2:] if all_test else counts):
            raise MgnpError(
                f"has splits of {train} / {validation} / {counts[2]} clean prompts; each of "
                f"{', '.join(SPLITS[2:] if all_test else SPLITS)} needs at least one"
            )
    ordered = [groups[i] for i in order]
    sizes = [sum(map(len, part)) for part in (ordered[:train], ordered[train:][:validation])]
    return [row for group in ordered for row in group], sizes[0], sizes[1]
