"""What a run is asked for: prompts, model, and a method with its own config."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from mgnp_jax.choices import check_choices
from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.methods.protocol import CIRCUITS, Method
from mgnp_jax.passes.settings import SAME_RESULT, that_count
from mgnp_jax.report.run_folder import flattened
from mgnp_jax.runs.folder import results_in, settings_in
from mgnp_jax.runs.inputs import checksums_of
from mgnp_jax.runs.states import SAVE_EVERY
from mgnp_jax.tasks import TASKS
from mgnp_jax.tasks.answers import WHOLE, check_answer
from mgnp_jax.tasks.task import EXTRA_CORRUPTIONS
from mgnp_jax.types import MgnpError, plain_json

CHECKSUMS = "checksums"
"""Name in config.json of what is no setting: checksums of the files that were read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Finds the circuit of a task in a model, measures it, saves it."""

    task: str | None = None
    """Built-in task: ioi, gt (greater-than), gp (gendered pronouns), or another in README.md."""
    gt_corruption: Literal["01", "other"] = "01"
    """Start year of greater-than's corrupted prompts: the century's 01, or any other."""
    data: Path | None = None
    """Your own prompts instead: JSON Lines, a JSON array or CSV (see mgnp_jax/tasks/files.py)."""
    skip_bad: bool = False
    """Leave out prompts of --data that cannot be used, instead of refusing the file."""
    metric: str = "logit_difference"
    """How scores are read from the answers of --data: logit_difference, probability_difference or
    best_difference (best right answer against best wrong one); built-in tasks have their own."""
    answer: Literal["single", "first", "whole"] = "single"
    """What is scored of answers of --data: their one token (single), the first of several (first),
    or the log-probability of all (whole)."""
    prefix: str | None = None
    """Text put before every prompt, or none for nothing; by default as the model has it."""
    train_prompts: int | None = None
    """Train on so many clean prompts: of a built-in task instead of its own count (ioi 200, gt and
    gp 150), of --data on the first so many. Validation and test prompts stay the same."""
    extra_corruptions: int = EXTRA_CORRUPTIONS
    """Further corrupted prompts for each training prompt, where the task knows any."""
    model: str = "gpt2-mini"
    """gpt2-mini, smollm2-135m, a Hugging Face id, or a local checkpoint directory."""
    method: str = ""
    """How the circuit is found, by name; decides which further flags there are."""
    out: Path | None = dataclasses.field(default=None, metadata=SAME_RESULT)
    """New or empty folder for the run; by default one under runs/."""
    resume: bool = dataclasses.field(default=False, metadata=SAME_RESULT)
    """Go on with the run in that folder, which was stopped or killed, to the same circuit; by
    default with the latest under runs/."""
    save_every: float = dataclasses.field(default=SAVE_EVERY, metadata=SAME_RESULT)
    """Seconds between the states that a run can be gone on from."""
    seed: int = 0
    """Of prompts and method; the same seed gives the same circuit."""
    test_prompts: int | None = None
    """Measure on the first so many test prompts only; all of them by default."""
    control_prompts: int = 200
    """Test prompts that random circuit, complement and nothing kept are measured on."""
    config: Any = DEFAULT()
    """The method's own."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_choices(self)
        if (self.task is None) == (self.data is None):
            raise MgnpError(
                f"pass one of --task ({', '.join(TASKS)}) and --data FILE"
                + (", not both" if self.task else "")
            )
        if self.gt_corruption == "other" and self.task != "gt":
            raise MgnpError("--gt-corruption goes with --task gt alone")
        check_least(self, seed=0, test_prompts=1, control_prompts=1, train_prompts=1)
        check_least(self, extra_corruptions=0, save_every=0)
        object.__setattr__(self, "method", checked_method(self.method, self.config))
        check_answer(self.answer, self.metric)
        if self.task is not None and self.answer == WHOLE:
            raise MgnpError(f"--answer {WHOLE} goes with --data: tasks' answers are one token")

    @property
    def source(self) -> str:
        """The built-in task, or the data file's path."""
        task = "gt-other" if self.gt_corruption == "other" else self.task
        return str(self.data.resolve() if self.data else task)


def checked_method(name: str, config: Method) -> str:
    """The name of a method, which must be that of its config.

    Args:
      name: as given; empty for the config's.
      config: the method's.

    Raises:
      MgnpError: if they do not go together.
    """
    if name not in ("", config.name):
        raise MgnpError(f"method {name!r} and a config of {config.name!r} do not go together")
    return config.name


def named_after(method: str) -> str:
    """What a default folder's name has of the method: nothing of the one used by default.

    Args:
      method: its name.
    """
    return "" if method == DEFAULT.name else f"-{method}"


def check_least(config: Any, **least_of: float) -> None:
    """Refuses settings that are below the least that can be meant.

    Args:
      config: of a command; a setting that is None was not given, and may be.
      least_of: the least values, by setting.

    Raises:
      MgnpError: naming the flag.
    """
    for name, least in least_of.items():
        if (value := getattr(config, name)) is not None and value < least:
            flag = name.replace("_", "-")
            raise MgnpError(f"--{flag} must be at least {least}, got {value}")


def method_named(name: str) -> type[Method]:
    """Looks up a method.

    Args:
      name: as on the command line.

    Raises:
      MgnpError: if there is none of that name.
    """
    if name not in METHODS:
        raise MgnpError(f"unknown method {name!r}: wanted one of {', '.join(METHODS)}")
    return METHODS[name]


def settings_text(config: RunConfig) -> str:
    """What config.json says.

    Args:
      config: of the run.
    """
    settings = plain_json(dataclasses.asdict(config))
    return json.dumps(settings | {CHECKSUMS: _checksums(config)}, indent=2) + "\n"


def _checksums(config: RunConfig) -> dict[str, str]:
    return checksums_of(config.data, config.model, config.config)


WITHOUT_EFFECT = ("sweep", "sweep_span")
"""Settings that a run had once, of which its result did not depend."""


def check_same(folder: Path, wanted: RunConfig) -> None:
    """Refuses to go on with a run by settings that would have another result.

    Args:
      folder: of the run.
      wanted: how it would be run now.

    Raises:
      MgnpError: naming the settings, or the files that have changed since.
    """
    # A setting that is newer than the run was at its default, or at what the method says.
    default = RunConfig(task=wanted.task, data=wanted.data, config=type(wanted.config)())
    now, known = (flattened(plain_json(that_count(c))) for c in (wanted, default))
    known |= flattened({"config": getattr(wanted.config, "done_before", {})})
    saved = flattened(settings_in(folder) or {})
    checksums = _checksums(wanted)
    for name in CIRCUITS:
        if f"{CHECKSUMS}.{name}" in saved and name in checksums:
            # What the circuit is counts, not where it lies by now.
            now.pop(f"config.{name}", None)
    # Without a method's name, or with settings that are not known, nobody can tell.
    was = {**known, "method": None, **saved}
    other = [n.rpartition(".")[2] for n in now if n not in was or was[n] != now[n]]
    settings = flattened(plain_json(dataclasses.asdict(wanted)))
    gone = [n for n in saved if n not in settings and not n.startswith(f"{CHECKSUMS}.")]
    other += [n for n in gone if n not in WITHOUT_EFFECT]
    if other:
        raise MgnpError(
            f"{folder} was run with another {', '.join(other)}; pass another --out, or delete "
            "that folder to run it again"
        )
    read = {n: value for n, value in checksums.items() if f"{CHECKSUMS}.{n}" in saved}
    if changed := [f"--{n}" for n in read if read[n] != saved[f"{CHECKSUMS}.{n}"]]:
        raise MgnpError(
            f"{folder} was run with other contents of {' and '.join(changed)}, which changed "
            "since; restore them, pass another --out, or delete that folder to run it again"
        )


def finished(folder: Path, wanted: RunConfig) -> dict[str, Any] | None:
    """Results of a run that is done; None if it is not.

    Args:
      folder: of the run.
      wanted: how it would be run now.

    Raises:
      MgnpError: if the folder holds a run with other settings or prompts, done or not.
    """
    if settings_in(folder) is None:
        return None
    check_same(folder, wanted)
    return results_in(folder)
