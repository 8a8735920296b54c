"""The same search on answers and on weights that are shuffled, and on halves of the prompts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mgnp_jax.methods.discover import discover
from mgnp_jax.models.hub import Model
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.report.run_folder import save_circuit
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.loading import load
from mgnp_jax.runs.saving import STATES
from mgnp_jax.runs.states import States
from mgnp_jax.tasks.altered import half_of, with_answers_of_others
from mgnp_jax.tasks.task import TaskData


def with_shuffled_weights(model: Model, seed: int) -> Model:
    """A model that has learned nothing: the values of each of its arrays in a random order.

    Args:
      model: any.
      seed: of the order.
    """
    rng = np.random.default_rng(seed)

    def shuffled(leaf: jax.Array) -> jax.Array:
        values = np.asarray(leaf)
        several = leaf.sharding if len(leaf.sharding.device_set) > 1 else None
        return jax.device_put(rng.permutation(values.ravel()).reshape(values.shape), several)

    params = jax.tree.map(shuffled, model.params)
    return dataclasses.replace(model, params=params, name=f"{model.name}, weights shuffled")


Altered = Callable[[Model, TaskData, int], tuple[Model, TaskData]]

SEARCHES: dict[str, Altered] = {
    "shuffled-answers": lambda model, data, seed: (model, with_answers_of_others(data, seed)),
    "shuffled-weights": lambda model, data, seed: (with_shuffled_weights(model, seed), data),
    "half-0": lambda model, data, seed: (model, half_of(data, 0)),
    "half-1": lambda model, data, seed: (model, half_of(data, 1)),
}
"""What the search is repeated on: (model, prompts, seed) → as they are then."""


def searched(name: str, run: RunConfig, folder: Path, console: Console) -> None:
    """Repeats a run's search on something else, or goes on with that; found once, it is kept.

    Args:
      name: one of `SEARCHES`.
      run: whose method, prompts and model.
      folder: for the circuit, which it has as `circuit/` then.
      console: where to report.
    """
    with at_work(folder) as stop:
        stop.told = "what is done is kept"
        loaded, prompts, _ = load(run)
        model, data = SEARCHES[name](loaded, prompts, run.seed)
        console.print(f"{run.method} on {name.replace('-', ' ')}", highlight=False, markup=False)
        with (
            TrainingProgress(getattr(run.config, "steps", None), console) as progress,
            contextlib.closing(
                States(folder / STATES, stop=stop, say=lambda text: progress({"text": text}))
            ) as states,
        ):
            key = jax.random.key(run.seed)
            found = discover(key, model, data, run.config, on_record=progress, saves=states)
        save_circuit(folder, found)
