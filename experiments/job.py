"""Finds one circuit and leaves it on disk, for the commands that find one or many."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

import mgnp_jax as mg
from experiments.command import check_counts, evaluate_with_bar
from mgnp_jax.masks.granularities import EMBEDDING
from mgnp_jax.metrics.controls import complement, shuffled
from mgnp_jax.metrics.evaluate import check_prompts, evaluate_all
from mgnp_jax.report import run_folder
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.tasks import check_source
from mgnp_jax.train.shares import shares

CONTROL_PROMPTS = 200
"""Test prompts that random circuit and complement are measured on."""

LITTLE_PRUNED = 0.98
"""Share of the parameters above which a circuit is called the whole model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Finds the circuit of a task in a model, measures it, saves it."""

    task: str | None = None
    """Built-in task: ioi, gt (greater-than) or gp (gendered pronouns)."""
    gt_corruption: Literal["01", "other"] = "01"
    """Start year of greater-than's corrupted prompts: the century's 01, or any other."""
    data: Path | None = None
    """Your own prompts instead: a JSON Lines file (see mgnp_jax/tasks/files.py)."""
    skip_bad: bool = False
    """Leave out prompts of --data that cannot be used, instead of refusing the file."""
    model: str = "gpt2-mini"
    """gpt2-mini, smollm2-135m, a Hugging Face id, or a local checkpoint directory."""
    out: Path | None = None
    """New or empty folder for the run; by default one under runs/. A sweep's may hold its runs."""
    seed: int = 0
    """Of prompts and gates; the same seed gives the same circuit."""
    test_prompts: int | None = None
    """Measure on the first so many test prompts only; all of them by default."""
    sweep: int | None = None
    """Find so many circuits at prices from an eighth of --penalty to eight times it, and draw what
    faithfulness costs in size. Prices that are done are not run again."""
    discover: Annotated[mg.DiscoverConfig, tyro.conf.arg(name="")] = mg.DiscoverConfig()
    """How the circuit is found."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        if (self.task is None) == (self.data is None):
            raise mg.MgnpError(
                f"pass one of --task ({', '.join(mg.TASKS)}) and --data FILE, not "
                + ("both" if self.task else "neither")
            )
        if self.gt_corruption == "other" and self.task != "gt":
            raise mg.MgnpError("--gt-corruption goes with --task gt alone")
        check_counts(self.seed, self.test_prompts)
        if self.sweep is not None and self.sweep < 2:
            raise mg.MgnpError(f"--sweep must be at least 2, got {self.sweep}")
        if self.sweep is not None and (self.discover.keep or self.discover.max_kl):
            raise mg.MgnpError("--sweep goes through prices; leave out --keep and --max-kl")
        if self.sweep is not None and self.discover.penalty == 0:
            raise mg.MgnpError("--sweep multiplies --penalty, which must be greater than 0, got 0")

    @property
    def source(self) -> str:
        """The built-in task, or the data file's path."""
        task = "gt-other" if self.gt_corruption == "other" else self.task
        return str(self.data.resolve() if self.data else task)


def chosen_by(circuit: mg.Circuit) -> str:
    """Why this circuit and no other of its training, in a sentence.

    Args:
      circuit: as found.
    """
    validation = circuit.metadata["validation"]
    asked = {"keep": "share of the prunable parameters", "max_kl": "KL in nats"}
    if "dial" not in validation and any(circuit.metadata["discover"][name] for name in asked):
        step = validation["step"]
        return f"Keeping the circuit of step {step}: stopped before it met what was asked"
    if "dial" not in validation:
        return (
            f"Keeping the circuit of step {validation['step']}: of all validations it has the "
            "least objective, in which its mean score's distance from the model's counts, too"
        )
    reached = validation["dial"]["reached"]
    ((name, target),) = ((n, validation["dial"][n]) for n in asked if n in validation["dial"])
    most = 1.1 if name == "keep" else 1.0
    missed = not 0.9 * target <= reached <= most * target
    why = (
        ", no nearer: single nodes make it jump, or nodes that could meet it are closed for "
        "good (--no-compact) or not trained (--granularities)"
    )
    return (
        f"Asked for a {asked[name]} of {target:g}, reached {reached:.4g} on validation prompts"
        + (why if missed else "")
    )


def run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Runs the main job.

    Args:
      config: what to do.
      console: where to report.

    Returns:
      The results, as in results.json.
    """
    source = config.source
    check_source(source)
    shares(config.discover.devices)
    run_folder.check_free(config.out)
    model = mg.load_model(config.model)
    data = mg.load_task(source, model.tokenizer, config.seed, skip_bad=config.skip_bad)
    test = data.test.take(slice(config.test_prompts))
    check_prompts(model.config, test)
    # Only now, so that a mistake above leaves no folder behind.
    name = f"{data.name}-{Path(config.model).name}-seed{config.seed}"
    folder = run_folder.new_folder(config.out, name)
    settings = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    # Whole or not at all: `finished` reads it.
    part = folder / "config.json.part"
    part.write_text(settings + "\n")
    part.rename(folder / "config.json")
    counts = " / ".join(f"{n:,}" for n in data.counts().values())
    gates = mg.gate_count(
        model.config,
        embedding=config.discover.train_embedding,
        names=config.discover.granularities,
    )
    console.print(
        f"{data.name} on {config.model}: {counts} training / validation / test prompts, "
        f"{gates:,} gates, {jax.devices()[0].device_kind}",
        highlight=False,
    )
    if data.note:
        console.print(data.note, highlight=False)
    if data.skipped:
        shown = "\n  ".join(data.problems)
        console.print(
            f"Left out {data.skipped:,} prompts that cannot be used (--skip-bad):\n  {shown}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    console.print("Running both plain passes and compiling; progress follows", highlight=False)
    with (folder / "metrics.jsonl").open("w") as log:
        with TrainingProgress(config.discover.steps, console) as progress:

            def on_record(record: dict[str, Any]) -> None:
                print(json.dumps(record), file=log, flush=True)
                progress(record)

            key = jax.random.key(config.seed)
            circuit = mg.discover(key, model, data, config.discover, on_record=on_record)
    console.print(chosen_by(circuit), highlight=False)
    figures = evaluate_with_bar(model, circuit, test, console)
    sizes = mg.circuit_sizes(model.config, circuit.masks)
    results = run_folder.results_of(circuit, config.seed, sizes, figures)
    some = test.take(slice(CONTROL_PROMPTS))
    others = {
        "random": shuffled(jax.random.key(config.seed), circuit.masks),
        "complement": complement(circuit.masks),
        "empty": mg.full_masks(model.config, 0.0, embedding=EMBEDDING in circuit.masks),
    }
    results["controls"] = evaluate_all(model, {"circuit": circuit, **others}, some)
    metadata = {**circuit.metadata, "test_prompts": config.test_prompts, "figures": figures}
    run_folder.write(folder, dataclasses.replace(circuit, metadata=metadata), results)
    for table in run_folder.tables_of(results, circuit):
        console.print(table.rich())
    if results["parameters"]["active"] > LITTLE_PRUNED * results["parameters"]["total"]:
        console.print(
            f"Warning: hardly anything is pruned after {config.discover.steps} steps, so this is "
            "the model rather than a circuit; train longer (--steps) or raise --penalty",
            style="yellow",
        )
    console.print(f"Saved to {folder} (start with {folder / 'README.md'})", highlight=False)
    return results


def finished(folder: Path, wanted: RunConfig) -> dict[str, Any] | None:
    """Results of a run that is done; None if it is not, and its remains are removed.

    Args:
      folder: of the run.
      wanted: how it would be run now.

    Raises:
      MgnpError: if the folder holds a run with other settings, done or not.
    """
    settings = folder / "config.json"
    if not settings.exists():
        return None

    def flat(config: dict[str, Any]) -> dict[str, Any]:
        prices = {f"penalties.{n}": p for n, p in config["discover"]["penalties"].items()}
        return config | config["discover"] | prices

    # A setting that is newer than the run was at its default.
    default = RunConfig(task=wanted.task, data=wanted.data)
    now, known = (
        flat(json.loads(json.dumps(dataclasses.asdict(c), default=str))) for c in (wanted, default)
    )
    was = known | flat(json.loads(settings.read_text()))
    nested = ("out", "discover", "penalties")
    other = [name for name in now if name not in nested and was[name] != now[name]]
    if other:
        raise mg.MgnpError(
            f"{folder} was run with another {', '.join(other)}; pass another --out, or delete "
            "that folder to run it again"
        )
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.exists() else None
    if results is None or results["training"]["interrupted"]:
        # A run writes this folder alone, its results last; so this one was cut short.
        shutil.rmtree(folder)
        return None
    return results
