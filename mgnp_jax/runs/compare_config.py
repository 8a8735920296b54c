"""What a comparison of methods is asked for."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.runs.config import RunConfig, check_least, method_named
from mgnp_jax.runs.method_settings import configured, other_circuit, settings_of
from mgnp_jax.tasks import check_source
from mgnp_jax.tasks.altered import check_movable
from mgnp_jax.tasks.task import EXTRA_CORRUPTIONS
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Finds a task's circuit by several methods and measures them all at equal size."""

    task: str | None = None
    """As for experiments.run."""
    data: Path | None = None
    """Your own prompts instead, as for experiments.run."""
    metric: str = "logit_difference"
    """How scores are read from the answers of --data."""
    answer: Literal["single", "first", "whole"] = "single"
    """As for experiments.run."""
    prefix: str | None = None
    """As for experiments.run."""
    skip_bad: bool = False
    """As for experiments.run."""
    train_prompts: int | None = None
    """As for experiments.run; all methods train on the same."""
    extra_corruptions: int = EXTRA_CORRUPTIONS
    """As for experiments.run."""
    model: str = "gpt2-mini"
    """As for experiments.run."""
    methods: str | None = None
    """Which, by name, with commas between; all by default."""
    reference: str = DEFAULT.name
    """The method whose circuit says how large the others' are; run first, named or not."""
    seeds: int = 3
    """How many, from --first-seed on."""
    first_seed: int = 3
    """Of prompts and methods. Defaults were chosen on seeds 0 to 2, so these are not theirs."""
    settings: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set")] = ()
    """METHOD.FIELD=VALUE, such as eap.keep=0.1: a setting of one method; may be given again.
    Fields are those of experiments.run --method METHOD; several values with commas between."""
    test_prompts: int = 1000
    """Measure on the first so many test prompts."""
    curve_prompts: int = 200
    """Measure curves over size on the first so many of these."""
    controls: bool = False
    """Also ask whether the reference's circuit of the first seed is real: other tasks' circuits,
    the same search on shuffled answers, on shuffled weights and on halves of the prompts, and more;
    four more searches, and one for each of --control-tasks."""
    control_tasks: tuple[str, ...] = ("ioi", "gt", "gp")
    """Tasks whose circuits should fail on this one, which is left out, as are its variants (gt and
    gt-other)."""
    out: Path | None = None
    """Folder for all of it, by default one under runs/; what is done in it is kept."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        for name in self.names:
            method_named(name)
        settings_of(self.settings)
        check_least(self, seeds=1, first_seed=0, test_prompts=1, curve_prompts=1)
        for name in self.control_tasks:
            check_source(name)
        # Before anything is run: whether there is such a task, and what was set can be.
        runs = [self.run_of(name, self.first_seed, Path()) for name in self.names]
        _check_reference(runs[0])
        if self.controls:
            check_movable(self.answer)
        check_ablations(runs)

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the reference first."""
        asked = METHODS if self.methods is None else self.methods.split(",")
        return tuple(dict.fromkeys((self.reference, *(name.strip() for name in asked))))

    @property
    def other_tasks(self) -> tuple[str, ...]:
        """Those of `control_tasks` that are another task than this: no variant, such as gt-other.

        A variant has the name of its task and, after a hyphen, what it differs in.
        """
        own = str(self.task).partition("-")[0]
        asked = dict.fromkeys(self.control_tasks)
        return tuple(name for name in asked if self.task is None or name.partition("-")[0] != own)

    @property
    def source(self) -> str:
        """The task's or the data file's name."""
        return str(self.task) if self.data is None else self.data.stem

    def run_of(self, method: str, seed: int, out: Path, like: Path | None = None) -> RunConfig:
        """One method's run.

        Args:
          method: its name.
          seed: of prompts and method.
          out: folder for the run.
          like: of the reference's, for a method that can be asked for as many nodes or edges, or
            that works within another circuit.
        """
        settings = settings_of(self.settings).get(method, {})
        return RunConfig(
            task=self.task,
            data=self.data,
            metric=self.metric,
            answer=self.answer,
            prefix=self.prefix,
            skip_bad=self.skip_bad,
            train_prompts=self.train_prompts,
            extra_corruptions=self.extra_corruptions,
            model=self.model,
            seed=seed,
            out=out,
            test_prompts=self.test_prompts,
            config=configured(method, settings, **other_circuit(method, like)),
        )

    def runs_of(self, seed: int, out: Path) -> list[RunConfig]:
        """The runs of a seed, the reference first, which must be done before the others are made.

        Args:
          seed: of prompts and methods.
          out: the comparison's folder.
        """
        folders = {name: out / f"{name}-seed{seed}" for name in self.names}
        like = folders[self.reference].resolve()
        return [
            self.run_of(name, seed, folder, None if name == self.reference else like)
            for name, folder in folders.items()
        ]

    @property
    def command(self) -> str:
        """The command that makes this comparison."""
        words = ["python", "-m", "experiments.compare"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = f"--{field.name.replace('_', '-')}"
            if field.name == "settings":
                words += [word for text in value for word in ("--set", text)]
            elif value is True:
                words.append(flag)
            else:
                words += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        return shlex.join(words)


def _check_reference(run: RunConfig) -> None:
    """Refuses a reference that works within another circuit, where none is named."""
    if getattr(run.config, "within", run) is None:
        raise MgnpError(
            f"--reference {run.method}: it works within the circuit that another method found, and "
            "the reference is run first, when there is none; take another --reference, or name "
            f"one: --set {run.method}.within=FOLDER"
        )


def check_ablations(runs: Sequence[Any]) -> None:
    """Refuses methods whose pruned nodes are given different things: figures of another task.

    Args:
      runs: each with a `method` and its `config`.

    Raises:
      MgnpError: naming them.
    """
    # A method that cannot be told has the corrupted run's values.
    given = {run.method: getattr(run.config, "ablation", "interchange") for run in runs}
    first, *others = given.items()
    if differ := [f"{name} has {ablation}" for name, ablation in others if ablation != first[1]]:
        raise MgnpError(
            "methods are compared where what is pruned is given the same (ablation): "
            f"{first[0]} has {first[1]}, but {', '.join(differ)}; set them alike, such as --set "
            f"{first[0]}.ablation=interchange, or leave methods out (--methods)"
        )
