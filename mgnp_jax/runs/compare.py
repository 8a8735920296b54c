"""Methods side by side on one bench: each found as it is meant, then measured at one size."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from mgnp_jax.files import write_csv, write_whole
from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.report.comparison import tables_of, wins
from mgnp_jax.report.comparison_page import comparison_figure, page
from mgnp_jax.report.text import save_picture
from mgnp_jax.runs.config import RunConfig, check_counts, method_named
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.matched import Bench, measured
from mgnp_jax.runs.method_settings import configured, settings_of
from mgnp_jax.runs.own_process import apart
from mgnp_jax.runs.run import ensured
from mgnp_jax.runs.stopping import Stop
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
    prefix: str | None = None
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
    Fields are those of experiments.run --method METHOD."""
    test_prompts: int = 1000
    """Measure on the first so many test prompts."""
    curve_prompts: int = 200
    """Measure curves over size on the first so many of these."""
    out: Path | None = None
    """Folder for all of it, by default one under runs/; what is done in it is kept."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        for name in self.names:
            method_named(name)
        settings_of(self.settings)
        check_counts(None, self.test_prompts)
        least_of = (("seeds", 1), ("first_seed", 0), ("curve_prompts", 1))
        for name, least in least_of:
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise MgnpError(f"--{flag} must be at least {least}, got {getattr(self, name)}")
        # Before anything is run: whether there is such a task, and what was set can be.
        for name in self.names:
            self.run_of(name, self.first_seed, Path())

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the reference first."""
        asked = METHODS if self.methods is None else self.methods.split(",")
        return tuple(dict.fromkeys((self.reference, *(name.strip() for name in asked))))

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
          like: of the reference's, for a method that can be asked for as many nodes or edges.
        """
        fields = {field.name for field in dataclasses.fields(METHODS[method])}  # type: ignore[arg-type]
        fixed = {"like": like} if like is not None and "like" in fields else {}
        return RunConfig(
            task=self.task,
            data=self.data,
            metric=self.metric,
            prefix=self.prefix,
            model=self.model,
            seed=seed,
            out=out,
            test_prompts=self.test_prompts,
            config=configured(method, settings_of(self.settings).get(method, {}), **fixed),
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
            flag = "set" if field.name == "settings" else field.name.replace("_", "-")
            for each in value if isinstance(value, tuple) else (value,):
                words += [f"--{flag}", str(each)]
        return shlex.join(words)


def compare(config: CompareConfig, console: Console) -> list[dict[str, Any]]:
    """Runs what is missing; writes comparison.json, curves.csv, comparison.png and README.md.

    Every run and every seed's measuring is a process of its own, so that times and peaks are those
    of one method.

    Args:
      config: what to compare.
      console: where to report.

    Returns:
      The rows of comparison.json: a circuit each.
    """
    out = config.out or Path("runs") / f"compare-{config.source}-{Path(config.model).name}"
    with at_work(out) as stop:
        stop.told = "the runs that are done are kept"
        found = []
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            found += _of_seed(config, seed, out, stop)
        rows = [row for each in found for row in each["rows"]]
        curve = [row for each in found for row in each["curve"]]
        _write(config, out, rows, curve, console)
        return rows


def _of_seed(config: CompareConfig, seed: int, out: Path, stop: Stop) -> list[dict[str, Any]]:
    """Finds and measures every method's circuit of one seed."""
    reference = config.run_of(config.reference, seed, out / f"{config.reference}-seed{seed}")
    apart(ensured, reference, stop=stop)
    runs = config.runs_of(seed, out)
    for run in runs[1:]:
        apart(ensured, run, stop=stop)
    bench = Bench(
        runs=tuple(runs),
        matched=out / "matched",
        figures=out / "figures",
        curve_prompts=config.curve_prompts,
    )
    return apart(measured, bench, stop=stop)


def _write(
    config: CompareConfig,
    out: Path,
    rows: list[dict[str, Any]],
    curve: list[dict[str, Any]],
    console: Console,
) -> None:
    title = f"{config.source} on {config.model}"
    text = json.dumps(rows, indent=2, allow_nan=False)
    write_whole(out / "comparison.json", text + "\n")
    columns = list(dict.fromkeys(name for row in curve for name in row))
    write_csv(out / "curves.csv", columns, [[row[name] for name in columns] for row in curve])
    save_picture(comparison_figure(rows, curve, title), out / "comparison.png")
    tables = tables_of(rows, config.reference)
    sentences = wins(rows, config.reference)
    told = page(
        title,
        sentences,
        tables,
        reference=config.reference,
        command=config.command,
        test_prompts=config.test_prompts,
        curve_prompts=min(config.curve_prompts, config.test_prompts),
    )
    write_whole(out / "README.md", told)
    for table in tables:
        console.print(table.rich())
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
    told = "start with README.md; comparison.json, curves.csv, comparison.png"
    console.print(f"Saved to {out} ({told})", highlight=False, markup=False)
