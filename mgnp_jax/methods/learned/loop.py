"""The loop of learned rankings: prepare; step, log, validate; keep the circuit of the size."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.levels import level_of
from mgnp_jax.methods.learned.config import Fixed, Learned
from mgnp_jax.methods.learned.step import Learning, first_learning, learned_step
from mgnp_jax.methods.protocol import Interrupted, OnRecord, Saved, Saves
from mgnp_jax.methods.sizing import Sizing
from mgnp_jax.methods.training.numbers import which_prompts
from mgnp_jax.methods.training.saved_trees import MOVING, by_name, restored
from mgnp_jax.methods.training.stepping import At, ahead, run_steps
from mgnp_jax.methods.training.work import Work, prepare
from mgnp_jax.metrics.per_prompt import measure
from mgnp_jax.models.hub import Model
from mgnp_jax.passes import memory
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import INIT_STREAM, Masks, MgnpError, Record, stream_key


@struct.dataclass
class LearnedState:
    """All that a run carries between steps.

    Attributes:
      done: steps done.
      learning: what a step moves.
      terms: of the loss of the last step that was logged, floats.
      validation: of the last circuit that was validated; None before.
    """

    done: int
    learning: Learning
    terms: dict[str, float] = struct.field(default_factory=dict)
    validation: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class _Search:
    """What stays over a whole run.

    Attributes:
      config: the method.
      size: to be kept at the end.
      fixed: what stays in every step.
      saves: where states are put aside.
    """

    config: Learned
    size: Sizing
    fixed: Fixed
    saves: Saves | None

    def circuit(self, learning: Learning) -> tuple[Masks, Masks]:
        """The binary circuit by now, and the ranking it is of."""
        scores = self.config.scores(self.size.model_config, learning.moved, self.fixed)
        return self.config.chosen(self.size, jax.device_get(scores)), scores


def find_learned(
    key: jax.Array,
    model: Model,
    data: TaskData,
    config: Learned,
    on_record: OnRecord,
    saves: Saves | None = None,
) -> Circuit:
    """Learns a ranking on the training prompts and keeps what has the size.

    Args:
      key: [] typed key of the run; folded, not consumed.
      model: its weights are read only.
      data: training prompts move the ranking; validation prompts are only reported on.
      config: the method.
      on_record: called at every logged step (`step`, `loss`, its terms) and validation.
      saves: where the state is put aside between steps, and gone on from; None for nowhere.

    Returns:
      The binary circuit of the size after the last step, with the ranking as `scores`.

    Raises:
      MgnpError: for a loss or gradient that is not a number.
      Interrupted: if the user stops it, with the circuit by then.
    """
    size = config.size(model.config)
    at = At(prepare(key, model, data, config, on_record), None)
    fixed = at.work.sharding.replicate(config.fixed(model.config, size))
    search = _Search(config, size, fixed, saves)
    at.state = _begun(at.work, saves)
    try:
        advance = functools.partial(_advance, search)
        run_steps(at, advance, functools.partial(_put_aside, search), on_record, saves)
    except KeyboardInterrupt:
        if not at.state.done:
            raise
        raise Interrupted(_extracted(search, at.state, interrupted=True)) from None
    return _extracted(search, at.state, interrupted=False)


def _begun(work: Work, saves: Saves | None) -> LearnedState:
    """The state before the first step, or that which is gone on from."""
    key = stream_key(work.key, INIT_STREAM, 0)
    first = work.sharding.replicate(first_learning(work.static, work.model.config, key))
    if saves is not None and (saved := saves.latest()) is not None:
        learning = work.sharding.replicate(restored(first, saved))
        return LearnedState(saved.done, learning, **saved.facts)
    return LearnedState(done=0, learning=first)


def _packed(state: LearnedState) -> Saved:
    trees = {MOVING: jax.device_get(by_name(state.learning))}
    return Saved(int(state.done), trees, {"terms": state.terms, "validation": state.validation})


def _put_aside(search: _Search, work: Work, state: LearnedState) -> Saved:
    _check_numbers(search, work, state)
    return _packed(state)


def _advance(
    search: _Search, work: Work, state: LearnedState, on_record: OnRecord
) -> tuple[Work, LearnedState]:
    """A step, a line of the log where one is due, and the validation."""
    config, step = search.config, state.done
    learning, terms = learned_step(
        *(work.static, work.model.config, work.key, work.params, search.fixed),
        *(state.learning, work.batch_of(step)),
    )
    learning, terms = work.sharding.settled((learning, terms))
    done = step + 1
    work, (learning, terms) = ahead(work, done, (learning, terms))
    state = state.replace(done=done, learning=learning)  # type: ignore[attr-defined]
    last = done == config.steps
    if step % config.log_every == 0 or last:
        # Compilers leave some behind.
        memory.give_back()
        _check_numbers(search, work, state)
        told = {name: float(term) for name, term in terms.items()}
        on_record({"step": done} | told)
        state = state.replace(terms=told)  # type: ignore[attr-defined]
    if last or done % config.validate_every == 0:
        _check_numbers(search, work, state)
        record = _validated(search, work, state)
        on_record({"step": done, "validation": record})
        state = state.replace(validation=record)  # type: ignore[attr-defined]
    return work, state


def _validated(search: _Search, work: Work, state: LearnedState) -> Record:
    """Figures of the binary circuit on the validation prompts."""
    masks, _ = search.circuit(state.learning)
    record = {"step": state.done, **measure(work.validation, masks, work.at_once)}
    if not all(math.isfinite(record[name]) for name in ("score", "kl")):
        raise MgnpError(
            f"the binary circuit of step {state.done} gives logits that are not numbers on the "
            f"validation prompts (score {record['score']}, KL {record['kl']}); check the checkpoint"
        )
    there = level_of(masks).full(work.model.config, 1.0, masks)
    kept = {name: float(mask.sum() / there[name].sum()) for name, mask in masks.items()}
    return record | {"kept": kept}


def _check_numbers(search: _Search, work: Work, state: LearnedState) -> None:
    """Stops at a step whose loss or gradient was not a number."""
    if not (bad := int(state.learning.bad)):
        return
    kept = ""
    if search.saves is not None and bad > 1:
        none = jnp.zeros_like(state.learning.bad)
        learning = state.learning.replace(bad=none)  # type: ignore[attr-defined]
        good = state.replace(done=bad - 1, learning=learning)  # type: ignore[attr-defined]
        kept = f"; the state of step {bad - 1} is in {search.saves.keep(_packed(good))}"
    raise MgnpError(
        f"the loss of {getattr(search.config, 'name', 'this method')} or its gradient is not a "
        f"number at step {bad}, on {which_prompts(work, work.order[bad - 1])}; check the "
        f"checkpoint, or use dtype float32{kept}"
    )


def _extracted(search: _Search, state: LearnedState, *, interrupted: bool) -> Circuit:
    """The circuit of the size, and what is to be known of its training."""
    masks, scores = search.circuit(state.learning)
    training = {"steps": state.done, "interrupted": interrupted, "loss": state.terms}
    metadata: dict[str, Any] = {"training": training}
    if not interrupted and (note := search.config.note(state.terms)):
        metadata["note"] = note
    if state.validation is not None:
        metadata["validation"] = state.validation
    return Circuit(masks=masks, scores=scores, metadata=metadata)
