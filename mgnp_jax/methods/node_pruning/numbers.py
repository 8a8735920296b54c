"""Numbers that are none: where training stops, of which prompts they are, what is kept."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from mgnp_jax.methods.node_pruning.state import LoopState, packed
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.methods.protocol import Saves
from mgnp_jax.methods.training.numbers import which_prompts
from mgnp_jax.methods.training.work import Work
from mgnp_jax.types import MgnpError, Record


def check_numbers(work: Work, state: LoopState, saves: Saves | None) -> None:
    """Stops at a step whose loss or gradient was not a number.

    Every step looks at its own and says so in its state, which then stays as it was before; this
    reads it, and so waits for the step.

    Args:
      work: what was worked with.
      state: after the step, or after some more.
      saves: where the last good state is put aside; None for nowhere.

    Raises:
      MgnpError: naming the step, its prompts, and the last good state.
    """
    if not (bad := int(state.trained.bad)):
        return
    trained = state.trained.replace(bad=jnp.zeros_like(state.trained.bad))  # type: ignore[attr-defined]
    good = state.replace(done=bad - 1, trained=trained)  # type: ignore[attr-defined]
    kept = ""
    if saves is not None and good.done:
        kept = f"; the state of step {good.done} is in {saves.keep(packed(good))}"
    rows = work.order[bad - 1]
    raise MgnpError(f"{_what(work, good, rows)}, on {which_prompts(work, rows)}{kept}")


def check_measured(record: Record) -> None:
    """Stops at a validation whose figures are not numbers.

    Args:
      record: of a binary circuit.

    Raises:
      MgnpError: naming its step.
    """
    figures = {name: record[name] for name in ("objective", "score", "kl")}
    if not all(map(math.isfinite, figures.values())):
        told = ", ".join(f"{name} {value}" for name, value in figures.items())
        raise MgnpError(
            f"the binary circuit of step {record['step']} gives logits that are not numbers on "
            f"the validation prompts ({told}); check the checkpoint"
        )


def _what(work: Work, good: LoopState, rows: np.ndarray) -> str:
    """What was not a number: the step is done once more, to be looked at."""
    band = work.band_of(good.done)
    runs = work.sharding.rows(band.train, rows, work.sizes)
    _, terms = train_step(
        *(work.static, work.model.config, work.key, work.params),
        *(good.trained, runs, band.compaction, good.left),
    )
    found = {name: float(term) for name, term in terms.items() if name != "kept"}
    told = ", ".join(f"{name} {value}" for name, value in found.items())
    if math.isfinite(found["loss"]):
        return (
            f"the gradient of the loss has entries that are not numbers at step {good.done + 1} "
            f"({told}): it is too large for {work.config.execution.precision}"
        )
    return (
        f"the loss is {found['loss']} at step {good.done + 1} ({told}): the model gives logits "
        "that are not numbers; check the checkpoint"
    )
