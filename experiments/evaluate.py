"""Measures a saved circuit again, in a new process, on any prompts.

python -m experiments.evaluate --circuit runs/ioi-gpt2-mini-seed0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

import mgnp_jax as mg
from experiments.command import command
from mgnp_jax.metrics.sanity import check_counts
from mgnp_jax.models.weights import weights_checksum
from mgnp_jax.report.tables import comparison_table
from mgnp_jax.runs.config import check_least
from mgnp_jax.runs.folder import undone
from mgnp_jax.runs.measuring import evaluate_with_bar
from mgnp_jax.runs.own_prompts import origin_of, prompts_for
from mgnp_jax.tasks.problems import many


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measures a saved circuit on held-out prompts, beside the figures saved with it."""

    circuit: Path
    """A run's folder, or the circuit/ in it."""
    model: str | None = None
    """Another model of the same shape; by default the one it was found on."""
    task: str | None = None
    """Another built-in task; by default the prompts it was found on."""
    data: Path | None = None
    """Your own prompts; all, unless they say their split or the circuit was found on them."""
    skip_bad: bool = False
    """Leave out prompts of --data that cannot be used, instead of refusing the file."""
    metric: str | None = None
    """How scores are read from the answers of --data; by default as the run did."""
    answer: Literal["single", "first", "whole"] | None = None
    """What is scored of answers of several tokens; by default as the run did."""
    prefix: str | None = None
    """Text put before every prompt, or none for nothing; by default as the run had it."""
    seed: int | None = None
    """Of the prompts; by default the run's."""
    test_prompts: int | None = None
    """Measure on the first so many test prompts only; by default all of --data, else as the run."""
    shard: int = 1
    """Devices that hold the weights together."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        if self.task is not None and self.data is not None:
            raise mg.MgnpError("pass one of --task and --data FILE, not both")
        check_least(self, seed=0, test_prompts=1)


def evaluate(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Measures the circuit and prints the comparison.

    Args:
      config: what to measure.
      console: where to report.

    Returns:
      The metrics.
    """
    if not (config.circuit / "circuit").exists() and undone(config.circuit):
        raise mg.MgnpError(
            f"{config.circuit} holds a run that is not done and has no circuit yet; call the "
            "command that began it again, with --resume"
        )
    circuit = mg.load_circuit(config.circuit)
    meta = {name: value for name, value in circuit.metadata.items() if value is not None}
    if not (config.model or meta.get("model")):
        raise mg.MgnpError(f"{config.circuit} does not say of which model it is; pass --model")
    model = mg.load_model(config.model or meta["model"], shard=config.shard)
    origin = origin_of(meta)
    data, own = prompts_for(
        meta,
        model,
        config.data or config.task,
        seed=config.seed,
        skip_bad=config.skip_bad,
        metric=config.metric,
        answer=config.answer,
        prefix=config.prefix,
    )
    limit = config.test_prompts or (meta.get("test_prompts") if own or config.task else None)
    test = dataclasses.replace(data.test.of_pairs(slice(limit)), prefix=None)  # It is said below.
    found_on = f"{meta.get('task', 'a task')} on {meta.get('model', 'a model')}"
    others = f" of {data.name} on {model.name}".removesuffix(f" of {found_on}")
    measured = f"measured on {many(test.pairs, 'test prompt')}{others}"
    lines = [f"{config.circuit}: {found_on}; {measured}", *data.told()]
    if data.prefix and origin["prefix"] not in (None, data.prefix.text):
        lines.append(f"It was found on prompts that begin with {origin['prefix'] or 'nothing'}")
    few = check_counts({"test": dataclasses.replace(data, test=test).counts()["test"]})
    console.print("\n".join([*lines, *few]), highlight=False, markup=False, soft_wrap=True)
    same = (
        (own, data.seed, limit) == (True, origin["seed"], meta.get("test_prompts"))
        and data.checksum() == meta.get("data_checksum")
        and (data.metric, data.answer) in (("", ""), (origin["metric"], origin["answer"]))
        and weights_checksum(model.params) == meta.get("weights_checksum")
    )
    figures = evaluate_with_bar(model, circuit, test, console)
    saved = meta.get("figures") if same else None
    if not same:
        console.print("Other prompts, weights or metric than the run's: without its figures beside")
    elif saved is None:
        console.print("The circuit was saved without figures, so there are none to show beside")
    if own and data.seed != origin["seed"]:
        console.print("Another seed draws afresh: some prompts may be among those trained on.")
    console.print(comparison_table(figures, saved).rich())
    return figures


if __name__ == "__main__":
    command(EvaluateConfig, evaluate)
