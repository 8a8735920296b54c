"""A task's prompts in three splits, and what is to be said of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.tasks.prefix import Prefix
from mgnp_jax.tasks.problems import Problem, counted, many, summary
from mgnp_jax.types import Batch, MgnpError, checksum


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
      problems: of these, in the order of the file.
      note: what a run should say of the prompts; empty if nothing.
      extra_corruptions: that were asked for beside each training prompt's own.
      train_prompts: how many were asked for to train on; None where the task's own count was.
      metric: of one's own prompts, by name; empty where the task has its own.
      answer: what is scored of one's own answers (`answers.ANSWER`); empty where the task says.
      prefix: what is put before every prompt; None where that is not known, as of prompts that were
        given as tokens.
    """

    name: str
    source: str
    seed: int
    train: Batch
    validation: Batch
    test: Batch
    skipped: int = 0
    problems: tuple[Problem, ...] = ()
    note: str = ""
    extra_corruptions: int = 0
    train_prompts: int | None = None
    metric: str = ""
    answer: str = ""
    prefix: Prefix | None = None

    def checksum(self) -> str:
        """SHA-256 of all tokens and answers, by which the same prompts are known again."""
        return checksum([self.train, self.validation, self.test])

    def counts(self) -> dict[str, int]:
        """Clean prompts per split, by name; each may come with several corrupted ones."""
        return {
            name: len(np.unique(getattr(self, name).openings().clean, axis=0))
            for name in ("train", "validation", "test")
        }

    def described(self) -> dict[str, Any]:
        """Counts, and how many pairs were left out because of what, as results.json has them."""
        because = {"left_out_because": counted(self.problems)} if self.problems else {}
        return {**self.counts(), "left_out": self.skipped, **because}

    def told(self, folder: Path | None = None) -> list[str]:
        """What a user should know of the prompts before they are used, as lines to print.

        Args:
          folder: of the run, in which pairs that were left out are listed; None if there is none.
        """
        lines = [f"{self.prefix}, {self.prefix.why}"] if self.prefix else []
        lines += [self.note] if self.note else []
        if self.skipped:
            left_out = f"Left out {many(self.skipped, 'pair')} that cannot be used (--skip-bad):"
            file = folder and folder / "left-out.txt"
            lines.append(left_out + summary(self.problems, self.name, file))
        return lines


def trained_on_first(data: TaskData, count: int) -> TaskData:
    """The same with fewer prompts to train on, each with all its corrupted ones.

    Args:
      data: prompts of which those of one clean prompt are neighbours, as `from_pairs` has them.
      count: clean prompts to train on, the first ones.

    Raises:
      MgnpError: if there are not as many.
    """
    clean = np.asarray(data.train.openings().clean)
    starts = np.flatnonzero([True, *(clean[1:] != clean[:-1]).any(-1)]) if len(clean) else clean
    if not 0 < count <= len(starts):
        raise MgnpError(
            f"{data.source} has {len(starts):,} clean prompts to train on, got --train-prompts "
            f"{count:,}; wanted from 1 to {len(starts):,}"
        )
    end = [*starts, len(clean)][count]
    return dataclasses.replace(data, train=data.train.of_pairs(slice(end)), train_prompts=count)


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
      train: pairs of the first split.
      validation: pairs of the second; the rest is the test split.
      source: where the prompts are from.
      seed: of the draw.
    """
    return TaskData(
        name=name,
        source=source,
        seed=seed,
        train=whole.of_pairs(slice(train)),
        validation=whole.of_pairs(slice(train, train + validation)),
        test=whole.of_pairs(slice(train + validation, None)),
    )
