"""The end of training: what was asked for is met, and the circuit is taken out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import gate_count
from mgnp_jax.masks.ranking import RANKING, together
from mgnp_jax.methods.node_pruning import compaction as closing
from mgnp_jax.methods.node_pruning.nested import log_price_of, price_of
from mgnp_jax.methods.node_pruning.numbers import check_measured
from mgnp_jax.methods.node_pruning.state import Best, LoopState
from mgnp_jax.methods.node_pruning.target import target_of
from mgnp_jax.methods.node_pruning.validation import measured, validated, why_this_one
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.methods.training.work import Work
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.types import Masks, Record


def settled(work: Work, state: LoopState, on_record: OnRecord) -> LoopState:
    """Meets the size or quality that was asked for, if one was.

    Args:
      work: what was worked with.
      state: after the last step.
      on_record: told what was met.
    """
    target = target_of(work.config)
    if target is None or state.best is None:
        return state
    log_alpha, controller = state.best.log_alpha, state.controller

    def measure(masks: Masks) -> Record:
        return measured(work.validation, masks, work.at_once)

    if work.config.nested:
        scores = log_price_of(work.config, log_alpha)
        share = functools.partial(prunable_share, work.model.config)
        masks, metrics = target.read_off(scores, share, measure)
        controller = controller.replace(price=price_of(scores, masks))  # type: ignore[attr-defined]
    else:
        log_alpha, masks, metrics = target.settle(
            log_alpha,
            work.config.granularities,
            lambda new, old: closing.hold(new, old, state.left),
            measure,
        )
    record = validated(work.config, work.model.config, state.done, masks, metrics, controller)
    on_record({"step": state.done, "validation": record})
    check_measured(record)
    best = Best(log_alpha=log_alpha, masks=masks, record=record)
    return state.replace(best=best)  # type: ignore[attr-defined]


def extracted(work: Work, state: LoopState, *, interrupted: bool) -> Circuit:
    """The circuit to keep, and what is to be known of its training.

    Args:
      work: what was worked with.
      state: after a validation.
      interrupted: whether the user ended it before the last step.
    """
    if state.best is None:
        raise AssertionError("the last step always validates")
    config = work.config
    record = state.best.record
    metadata: dict[str, Any] = {
        "settings": dataclasses.asdict(config),
        "training": {
            "steps": state.done,
            "interrupted": interrupted,
            "gates": gate_count(
                work.model.config, embedding=config.train_embedding, names=config.granularities
            ),
            "loss": state.terms,
        },
        "validation": record,
        "note": why_this_one(config, record),
    }
    scores = None
    if config.nested:
        scores = log_price_of(config, state.best.log_alpha)
        metadata[RANKING] = together(work.model.config)
    return Circuit(
        scores=scores,
        masks=state.best.masks,
        log_alpha=state.best.log_alpha,
        metadata=metadata,
        ablation_values=work.constants,
    )
