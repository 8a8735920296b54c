"""What is wrong with prompts, in words: all of it where it is little, by cause where it is much."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mgnp_jax.cachedir import cache_root
from mgnp_jax.files import write_whole

MOST_SHOWN = 20
"""So many problems are shown one by one; of more, so few for each cause as this:"""
EXAMPLES = 3


class Problem(NamedTuple):
    """Something that makes a pair unusable.

    Attributes:
      origin: of the pair, as `"file.jsonl:12"`.
      cause: the same words for the same kind of thing.
      detail: what was wanted and what was got.
    """

    origin: str
    cause: str
    detail: str

    def __str__(self) -> str:
        """With its origin."""
        return f"{self.origin}: {self.detail}"


def unreadable(text: str) -> bool:
    """Whether a text is none, as half of a surrogate pair is none.

    Args:
      text: any.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def counted(problems: Sequence[Problem]) -> dict[str, int]:
    """How many pairs each cause makes unusable, most first.

    Args:
      problems: any; a pair may have several.
    """
    causes = Counter(cause for _, cause in {(p.origin, p.cause) for p in problems})
    return dict(sorted(causes.items(), key=lambda item: (-item[1], item[0])))


def many(count: int, what: str) -> str:
    """A number of things, in words.

    Args:
      count: of them.
      what: one of them is called; its plural has an s.
    """
    return f"{count:,} {what}{'s' * (count != 1)}"


def summary(problems: Sequence[Problem], name: str, file: Path | None = None) -> str:
    """Problems as indented lines: each of a few, examples of many, which a file has all of.

    Args:
      problems: in the order of the prompts.
      name: of the prompts.
      file: where all are written; None for one in the cache if not all are shown.
    """
    few = len(problems) <= MOST_SHOWN
    lines = [f"\n  {problem}" for problem in problems[:MOST_SHOWN]] if few else []
    for cause, count in () if few else counted(problems).items():
        lines.append(f"\n  {count:,} × {cause}, for example")
        some = [problem for problem in problems if problem.cause == cause][:EXAMPLES]
        lines += [f"\n    {problem}" for problem in some]
    if file is None and few:
        return "".join(lines)
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:80]
    place = file or cache_root() / "problems" / f"{slug}.txt"
    return "".join(lines) + _written(problems, place, shared=file is None)


def _written(problems: Sequence[Problem], file: Path, *, shared: bool) -> str:
    """A line that says where all problems are listed."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, "".join(f"{problem}\n" for problem in problems), shared=shared)
    except OSError as error:
        return f"\n  (the list of all could not be written to {file}: {error.strerror})"
    return f"\n  (listed in {file}: {many(len(problems), 'problem')})"
