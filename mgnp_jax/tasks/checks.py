"""Every check that a pair must pass before a model sees it.

The built-in tasks, a user's own file and `from_pairs` all go through `problems_of`, so all are held
to the same rules: equal lengths, answers of one token unless all of several are scored, nothing
that tokenizer or model do not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mgnp_jax.files import shown
from mgnp_jax.tasks.pairs import Encoded, PromptPair, Row, batch_of, encode
from mgnp_jax.tasks.prefix import Prefix
from mgnp_jax.tasks.problems import Problem, many, summary
from mgnp_jax.tasks.tokens import Limits, has_unknown, unknown_token
from mgnp_jax.types import AnswerMetric, Batch, MgnpError, Tokenizer

MOST_NAMED = 3
"""So many of one pair's unusable answers are named."""


def encode_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[PromptPair],
    metric: AnswerMetric,
    prefix: Prefix,
    limits: Limits | None = None,
) -> Batch:
    """Turns text pairs that must all be usable into one batch.

    Args:
      tokenizer: a transformers tokenizer.
      pairs: N pairs, each with one corrupted prompt.
      metric: how scores are read from the answers.
      prefix: what prompts begin with.
      limits: what the model can take; None if that is not known.

    Returns:
      A batch of N rows.

    Raises:
      MgnpError: with the pairs that cannot be used, their origin, what was wanted, what was got.
    """
    encoded = encode(tokenizer, pairs, prefix)
    found = problems_of(tokenizer, encoded, prefix, limits)
    problems = [problem for of_pair in found for problem in of_pair]
    if problems:
        raise MgnpError(
            f"{many(len(problems), 'problem')} in the prompts:{summary(problems, 'prompts')}"
        )
    return batch_of(encoded, metric, prefix)


def problems_of(
    tokenizer: Tokenizer, encoded: Encoded, prefix: Prefix, limits: Limits | None = None
) -> list[list[Problem]]:
    """What makes pairs unusable.

    Args:
      tokenizer: a transformers tokenizer.
      encoded: N pairs.
      prefix: what their prompts begin with.
      limits: what the model can take; None if that is not known.

    Returns:
      For each pair its problems; none for a usable pair.
    """
    unknown = unknown_token(tokenizer)
    answers = {}
    for text, ids in encoded.answers.items():
        several = encoded.whole and len(ids) > 1
        if not (several or len(ids) == 1) or has_unknown(tokenizer, unknown, text, ids):
            answers[text] = f"is read as {shown(tokenizer.convert_ids_to_tokens(ids))}"
        elif limits is not None and max(ids) >= limits.vocab_size:
            has = "has" if several else "is"
            answers[text] = f"{has} token {max(ids)}, the model's last is {limits.vocab_size - 1}"
    # Many pairs share their lists of answers.
    told: dict[tuple[int, ...], list[tuple[str, str]]] = {}
    found = []
    for row in encoded.rows:
        lists = [*row.pair.sets.values(), row.pair.kl_over.values()]
        same = tuple(id(texts) for part in lists for texts in part)
        if same not in told:
            told[same] = list(_of_answers(row.pair, answers, encoded))
        said = [
            *_of_lengths(row, prefix, limits, encoded),
            *_of_words(tokenizer, unknown, row, prefix, limits),
            *told[same],
        ]
        found.append([Problem(row.pair.origin, cause, detail) for cause, detail in said])
    return found


def _of_lengths(
    row: Row, prefix: Prefix, limits: Limits | None, encoded: Encoded
) -> Iterator[tuple[str, str]]:
    """What is wrong with how long a pair's prompts are."""
    pair, clean, corrupted = row
    # The last token of an answer is read before it, and never behind a prompt.
    more = _longest(pair, encoded) - 1 if encoded.whole and pair.answers else 0
    if len(clean) != len(corrupted):
        yield (
            "clean and corrupted differ in length",
            f"clean has {len(clean)} tokens and corrupted {len(corrupted)}; both must be "
            f"equally long, position by position: "
            f"{shown(pair.clean)} / {shown(pair.corrupted)}",
        )
    elif clean == corrupted:
        same = "clean and corrupted are the same tokens"
        yield same, f"{same}: {shown(pair.clean)} / {shown(pair.corrupted)}"
    for side, ids in (("clean", clean), ("corrupted", corrupted)):
        if len(ids) <= len(prefix.ids) and tuple(ids) == prefix.ids:
            said = f"{side} {shown(getattr(pair, side))} has no token besides the prefix"
            yield "a prompt without tokens", said
        if limits is not None and len(ids) + more > limits.context:
            behind = f" and {more:,} of an answer" if more else ""
            has = f"{side} has {len(ids):,} tokens{behind}"
            said = f"{has}, the model's context is {limits.context:,}"
            yield "a prompt longer than the model's context", said


def _longest(pair: PromptPair, encoded: Encoded) -> int:
    """Tokens of a pair's longest answer."""
    sides = (side for sides in pair.sets.values() for side in sides)
    return max((len(encoded.answers[text]) for side in sides for text in side), default=1)


def _of_words(
    tokenizer: Tokenizer,
    unknown: tuple[str, int] | None,
    row: Row,
    prefix: Prefix,
    limits: Limits | None,
) -> Iterator[tuple[str, str]]:
    """Words of a pair's prompts that tokenizer or model do not know."""
    for side, text, ids in (
        ("clean", row.pair.clean, row.clean),
        ("corrupted", str(row.pair.corrupted), row.corrupted),
    ):
        if has_unknown(tokenizer, unknown, text, ids[len(prefix.ids) :]):
            known = [i for i in ids if unknown is None or i != unknown[1]]
            yield (
                "words that the tokenizer does not know",
                f"{side} has words the tokenizer does not know; all it reads is "
                f"{shown(tokenizer.decode(known))}",
            )
        beyond = [] if limits is None else [i for i in ids if i >= limits.vocab_size]
        if limits is not None and beyond:
            yield (
                "a token beyond the model's vocabulary",
                f"{side} has {shown(tokenizer.decode(beyond[:1]))}, token {beyond[0]}; the model's "
                f"last is {limits.vocab_size - 1}",
            )


def _of_answers(
    pair: PromptPair, bad: Mapping[str, str], encoded: Encoded
) -> Iterator[tuple[str, str]]:
    """What is wrong with a pair's answers."""
    ids, named = encoded.answers, dict[str, str]()
    how = "begin with one token" if encoded.longer else "are one token"
    how = "are read alike" if encoded.whole else how
    for name, texts in pair.used.items() if bad else ():
        for text in texts:
            if text in bad:
                named.setdefault(text, name)
    if named:
        several = any(len(ids[text]) > 1 for text in named)
        told = [
            f"answer {shown(text)} ({name}) {bad[text]}"
            for text, name in list(named.items())[:MOST_NAMED]
        ]
        more = f" and {len(named) - len(told):,} more" if len(named) > len(told) else ""
        wanted = "an answer must be one known token (mind the leading space)"
        wanted += ", or its first one may be scored (--answer first), or all (whole)" * several
        cause = "an answer that is not one known token"
        if encoded.whole:
            wanted = "an answer must have known tokens alone"
            cause = "an answer with an unknown token, or none"
        yield cause, f"{'; '.join(told)}{more}; {wanted}"
        return
    for name, sides in pair.sets.items():
        right, wrong = ({tuple(ids[text]): text for text in side} for side in sides)
        both = [f"{shown(right[i])} and {shown(wrong[i])}" for i in right if i in wrong]
        if both:
            said = f"{both[0]} {how}: right and wrong answers at once ({name})"
            yield "an answer that is right and wrong", said
    for name, sides in pair.sets.items() if encoded.whole else ():
        within = [found for a in sides[0] for b in sides[1] if (found := _begun(a, b, ids))]
        if within:
            yield (
                "an answer that begins another",
                f"answer {shown(within[0][0])} begins {shown(within[0][1])} ({name}), which can "
                "never be the likelier; one must be right and the other wrong by another token",
            )
    if encoded.whole and pair.kl_over:
        told = f"kl_over ({', '.join(pair.kl_over)}) is of tokens at one place, and whole answers"
        yield "kl_over beside whole answers", f"{told} are read at several; leave it out"
        return
    for name, texts in pair.kl_over.items():
        if len({ids[text][0] for text in texts}) < len(texts):
            said = f"kl_over {name!r} has a token twice; each would be weighed by how often"
            yield "a token given twice", said


def _begun(right: str, wrong: str, ids: Mapping[str, Sequence[int]]) -> tuple[str, str] | None:
    """The two, the shorter first, if the other begins with all its tokens."""
    short, long = sorted((right, wrong), key=lambda text: len(ids[text]))
    begins = len(ids[short]) < len(ids[long]) and [*ids[long]][: len(ids[short])] == [*ids[short]]
    return (short, long) if begins else None
