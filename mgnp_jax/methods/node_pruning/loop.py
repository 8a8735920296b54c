"""The training loop: prepare; step, log, validate, compact; extract."""

from __future__ import annotations

import functools

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.node_pruning import compaction as closing
from mgnp_jax.methods.node_pruning import schedule
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.extraction import extracted, settled
from mgnp_jax.methods.node_pruning.nested import circuit_of, kept_price
from mgnp_jax.methods.node_pruning.numbers import check_measured, check_numbers
from mgnp_jax.methods.node_pruning.state import (
    Best,
    LoopState,
    first_state,
    packed,
    unpacked,
)
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.methods.node_pruning.validation import measured, validated
from mgnp_jax.methods.protocol import Interrupted, OnRecord, Saved, Saves
from mgnp_jax.methods.training.stepping import At, ahead, run_steps
from mgnp_jax.methods.training.work import Work, prepare
from mgnp_jax.models.hub import Model
from mgnp_jax.passes import memory
from mgnp_jax.passes.compaction import compacted, plan_for
from mgnp_jax.passes.segment_plan import Plan, full_cost
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks, MgnpError, Record


def find_circuit(
    key: jax.Array,
    model: Model,
    data: TaskData,
    config: Settings,
    on_record: OnRecord,
    saves: Saves | None = None,
) -> Circuit:
    """Trains gates on the training prompts and takes the circuit out.

    Args:
      key: [] typed key of the run; folded, not consumed.
      model: its weights are read only.
      data: training prompts move log-alpha, validation prompts choose the circuit.
      config: how.
      on_record: called with a dict at every logged step (`step`, `loss`, its terms,
        `kept`; with several bands of prices, of whose prompts it is, as `band`), validation
        (`step`, `validation`) and compaction (`step`, `cost`, the multiply-adds of what is left
        over those of the whole model, the mean over bands, and it as `text`).
      saves: where the state is put aside between steps, and gone on from; None for nowhere.

    Returns:
      The circuit of the price, size or KL that was asked for, by the last ranking; without one
      that with the least objective on the validation split, or the last, where settings say so.

    Raises:
      MgnpError: for a loss, gradient or score that is not a number.
      Interrupted: if the user stops it, with the best circuit so far.
    """
    _check_kl(config, data)
    at = _begun(prepare(key, model, data, config, on_record), saves)
    try:
        advance = functools.partial(_advance, saves)
        run_steps(at, advance, functools.partial(_put_aside, saves), on_record, saves)
        at.state = settled(at.work, at.state, on_record)
    except KeyboardInterrupt:
        if at.state.best is None:
            raise
        raise Interrupted(extracted(at.work, at.state, interrupted=True)) from None
    return extracted(at.work, at.state, interrupted=False)


def _begun(work: Work, saves: Saves | None) -> At:
    """Where the loop begins, or goes on."""
    work = work.in_bands(work.config.bands)
    state = first_state(work.config, work.model.config, work.key, work.sharding)
    if saves is not None and (saved := saves.latest()) is not None:
        work, state = _taken_up(work, state, saved)
    return At(work, state)


def _check_kl(config: Settings, data: TaskData) -> None:
    known = data.train.targets.kl_over
    if config.kl_over not in (None, *known):
        raise MgnpError(
            f"kl_over must be one of the prompts' own ({', '.join(known) or 'they have none'}), "
            f"got {config.kl_over!r}"
        )


def _put_aside(saves: Saves | None, work: Work, state: LoopState) -> Saved:
    check_numbers(work, state, saves)
    return packed(state)


def _taken_up(work: Work, first: LoopState, saved: Saved) -> tuple[Work, LoopState]:
    """What was put aside, and what is left of the model by then."""
    state = unpacked(first, saved)
    trained = work.sharding.replicate(state.trained)
    state = state.replace(trained=trained)  # type: ignore[attr-defined]
    for band, left in enumerate((state.left, *state.dearer)):
        if left is not None:
            plan = plan_for(work.model.config, left, work.config.execution.max_segments)
            work = _narrowed(work, plan, left, band)
            state = _left(work, state, band)
    return work, state


def _left(work: Work, state: LoopState, band: int) -> LoopState:
    """The state with what is left for a band's steps, where devices have it."""
    smaller = work.bands[band].compaction
    assert smaller is not None
    if not band:
        return state.replace(left=smaller.open)  # type: ignore[attr-defined]
    dearer = list(state.dearer)
    dearer[band - 1] = smaller.open
    return state.replace(dearer=tuple(dearer))  # type: ignore[attr-defined]


def _advance(
    saves: Saves | None, work: Work, state: LoopState, on_record: OnRecord
) -> tuple[Work, LoopState]:
    """A step, and the validation after it if one is due."""
    work, state = _step(work, state, on_record, saves)
    config = work.config
    if state.done % config.validate_every and state.done != config.steps:
        return work, state
    check_numbers(work, state, saves)
    return _compact(work, _validate(work, state, on_record), on_record)


def _step(
    work: Work, state: LoopState, on_record: OnRecord, saves: Saves | None
) -> tuple[Work, LoopState]:
    """One step, and a line of the log where one is due."""
    config, step = work.config, state.done
    trained, terms = train_step(
        *(work.static, work.model.config, work.key, work.params),
        *(state.trained, work.batch_of(step), work.band_of(step).compaction, state.left),
    )
    trained, terms = work.sharding.settled((trained, terms))
    done = step + 1
    work, (trained, terms) = ahead(work, done, (trained, terms))
    state = state.replace(done=done, trained=trained)  # type: ignore[attr-defined]
    # A step of each band.
    if step % config.log_every >= config.bands and done != config.steps:
        return work, state
    # Compilers leave some behind.
    memory.give_back()
    check_numbers(work, state, saves)
    record: Record = {"step": done} | jax.tree.map(float, terms)
    if config.bands > 1:
        record["band"] = step % config.bands
    on_record(record)
    told = {k: v for k, v in record.items() if k not in ("step", "kept", "band")}
    return work, state.replace(terms=told)  # type: ignore[attr-defined]


def _validate(work: Work, state: LoopState, on_record: OnRecord) -> LoopState:
    """Measures the binary circuit, and keeps the best."""
    config, done, log_alpha = work.config, state.done, state.trained.log_alpha
    masks = circuit_of(config, log_alpha)
    metrics = measured(work.validation, masks, work.at_once)
    record = validated(config, work.model.config, done, masks, metrics, kept_price(config))
    on_record({"step": done, "validation": record})
    check_measured(record)
    best = state.best
    # No circuit of one price says which ranking is best.
    latest = config.choose == "last" or config.nested
    if best is None or latest or record["objective"] < best.record["objective"]:
        best = Best(log_alpha=log_alpha, masks=masks, record=record)
    return state.replace(best=best)  # type: ignore[attr-defined]


def _compact(work: Work, state: LoopState, on_record: OnRecord) -> tuple[Work, LoopState]:
    """Leaves out what is closed for good, if that saves more than a compilation costs."""
    config, execution = work.config, work.config.execution
    if not execution.compact or execution.lockstep or state.done == config.steps:
        return work, state
    before = work
    for band in range(len(work.bands)):
        # What is closed for good no band runs.
        due = work.bands[0] is not before.bands[0]
        work, state = _compact_band(work, state, band, due=due)
    if work is not before:
        cost = work.cost / full_cost(work.model.config)
        told = f"closed nodes left out: a token costs {100 * cost:.0f}% of the whole model"
        on_record({"step": state.done, "cost": cost, "text": told})
    return work, state


def _compact_band(work: Work, state: LoopState, band: int, *, due: bool) -> tuple[Work, LoopState]:
    """Leaves out what none of a band's prices would keep; of the cheapest band, for good."""
    config, execution = work.config, work.config.execution
    noise = float(schedule.noise_scale(config, state.trained.step))
    shift = config.nesting.widest_shift(band) if config.nested else 0.0
    log_alpha = state.trained.log_alpha
    if config.votes > 1:
        # What one of the trainings may keep is run for all.
        log_alpha = jax.tree.map(lambda leaf: leaf.max(0), log_alpha)
    left = closing.still_open(log_alpha, noise, config.closed_below, shift)
    left = closing.only(left, state.left)
    plan = plan_for(work.model.config, left, execution.max_segments)
    steps = len(range(state.done, config.steps)[(band - state.done) % config.bands :: config.bands])
    to_come = steps * work.sizes.tokens * work.sharding.count
    # Each step has a forward pass and the gradient's.
    saves = 2 * (work.bands[band].cost - plan.cost) * to_come >= execution.compile_cost
    if band and not (saves or due):
        # Steps of cheaper bands may have opened some of it for this one, too.
        now = closing.still_open(log_alpha, noise, 0.5, shift)
        due = closing.beyond(now, state.dearer[band - 1])
    if not (saves or due):
        return work, state
    work = _narrowed(work, plan, left, band)
    state = _left(work, state, band)
    if band or state.left is None:
        return work, state
    log_alpha = closing.closed(state.trained.log_alpha, state.left, shift)
    trained = state.trained.replace(log_alpha=log_alpha)  # type: ignore[attr-defined]
    return work, state.replace(trained=trained)  # type: ignore[attr-defined]


def _narrowed(work: Work, plan: Plan, left: Masks, band: int) -> Work:
    """The same work with what is left of the model for a band's steps."""
    smaller = compacted(work.model.config, work.params, plan, jax.device_get(left))
    placed = work.sharding.place_smaller(work.model.config, smaller)
    return work.compacted(placed, plan.cost, band)
