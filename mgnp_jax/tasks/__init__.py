"""Stage 1: text → clean and corrupted token pairs."""

from __future__ import annotations

from pathlib import Path

from mgnp_jax.tasks.agreement import ACROSS_PHRASE, AGREEMENT
from mgnp_jax.tasks.answers import SINGLE, check_answer
from mgnp_jax.tasks.arithmetic import ADDITION, SUBTRACTION
from mgnp_jax.tasks.capital import CAPITAL
from mgnp_jax.tasks.data import trained_on_first
from mgnp_jax.tasks.docstring import DOCSTRING
from mgnp_jax.tasks.files import load_file
from mgnp_jax.tasks.gendered_pronouns import GENDERED_PRONOUNS
from mgnp_jax.tasks.greater_than import GREATER_THAN, OTHER_YEAR
from mgnp_jax.tasks.induction import INDUCTION
from mgnp_jax.tasks.ioi import IOI, SWAPPED
from mgnp_jax.tasks.multiple_choice import MULTIPLE_CHOICE
from mgnp_jax.tasks.task import EXTRA_CORRUPTIONS, Task, TaskData, build
from mgnp_jax.tasks.tokens import Limits, check_tokenizer
from mgnp_jax.types import MgnpError, Tokenizer

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(IOI, GREATER_THAN, GENDERED_PRONOUNS, OTHER_YEAR, SWAPPED, ADDITION, SUBTRACTION),
        *(MULTIPLE_CHOICE, DOCSTRING, AGREEMENT, ACROSS_PHRASE, INDUCTION, CAPITAL),
    )
}
"""Tasks by the name they have on the command line. One of your own may be added."""


def load_task(
    name: str | Path,
    tokenizer: Tokenizer,
    seed: int = 0,
    *,
    skip_bad: bool = False,
    extra_corruptions: int = EXTRA_CORRUPTIONS,
    train_prompts: int | None = None,
    metric: str = "logit_difference",
    answer: str = SINGLE,
    prefix: str | None = None,
    limits: Limits | None = None,
    all_test: bool = False,
) -> TaskData:
    """Makes a task's prompts for one tokenizer.

    Args:
      name: of one of `TASKS`; or the path of a file of prompts (`tasks.files`).
      tokenizer: the model's; decides which words are single tokens.
      seed: of the draw; the same seed gives the same prompts.
      skip_bad: leave out pairs of a file that cannot be used, instead of refusing it.
      extra_corruptions: further corrupted prompts that each training prompt of a built-in task is
        used with, where it knows any.
      train_prompts: clean prompts to train on: of a built-in task instead of its own count, of a
        file on the first so many; None for all. Validation and test prompts stay the same.
      metric: how scores are read from the answers of a file, by name; tasks have their own.
      answer: what is scored of the answers of a file: `"single"` if each must be one token,
        `"first"` for the first of several, `"whole"` for the log-probability of all.
      prefix: put before every prompt that does not begin with it; `""` or `"none"` for nothing,
        None for the checkpoint's own policy.
      limits: the model's config, so that prompts that are longer than its context, and tokens that
        it does not have, are named by line; without it they are refused when the model is run.
      all_test: pairs of a file that name no split are all test prompts, as for measuring a
        circuit that was found on others.

    Returns:
      Train, validation and test splits, padded to one length, no clean prompt in two.

    Raises:
      MgnpError: for an unknown task, a model without tokenizer, or prompts that cannot be
        used, each named.
    """
    check_tokenizer(tokenizer)
    check_answer(answer, metric)
    check_source(name)
    if str(name) in TASKS and not isinstance(name, Path):
        own = {"train_prompts": train_prompts, "prefix": prefix, "limits": limits}
        return build(TASKS[str(name)], tokenizer, seed, extra_corruptions, **own)
    data = load_file(
        Path(name),
        tokenizer,
        seed,
        skip_bad=skip_bad,
        metric=metric,
        answer=answer,
        prefix=prefix,
        limits=limits,
        all_test=all_test,
    )
    return data if train_prompts is None else trained_on_first(data, train_prompts)


def check_source(name: str | Path) -> None:
    """Refuses a source of prompts that does not exist, before anything is loaded.

    Args:
      name: a built-in task or the path of a file of prompts.

    Raises:
      MgnpError: if it is neither.
    """
    if str(name) in TASKS or Path(name).is_file():
        return
    path = Path(name)
    there = "there is no such file"
    if path.exists():
        there = "that is a folder" if path.is_dir() else "that is a device or pipe"
    if path.suffix or len(path.parts) > 1 or path.is_dir():
        raise MgnpError(f"no prompts at {str(name)!r}: wanted a JSON Lines file, and {there}")
    raise MgnpError(
        f"unknown task {str(name)!r}: wanted one of {', '.join(TASKS)} (your own prompts are "
        f"--data FILE, or a path from Python: {there})"
    )
