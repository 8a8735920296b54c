"""The end of training: what was asked for is met, and the circuit is taken out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import Graph
from mgnp_jax.masks.granularities import ATTENTION_HEADS, full_masks, gate_count
from mgnp_jax.masks.of_size import of_size
from mgnp_jax.masks.ranking import RANKING, together
from mgnp_jax.methods.node_pruning.nested import (
    kept_by,
    log_price_of,
    mean_of_votes,
    price_of,
)
from mgnp_jax.methods.node_pruning.numbers import check_measured
from mgnp_jax.methods.node_pruning.state import Best, LoopState
from mgnp_jax.methods.node_pruning.validation import measured, validated, why_this_one
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.methods.training.work import Work
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError, Record


def settled(work: Work, state: LoopState, on_record: OnRecord) -> LoopState:
    """Meets the size or quality that was asked for, if one was.

    Args:
      work: what was worked with.
      state: after the last step.
      on_record: told what was met.
    """
    config, best = work.config, state.best
    if best is None or not config.asked:
        return state
    log_alpha = mean_of_votes(config, best.log_alpha)
    scores = log_price_of(config, log_alpha)
    said = {RANKING: together(work.model.config), "graph": Graph.of(work.model.config)._asdict()}
    ranked = Circuit(masks=best.masks, scores=scores, log_alpha=log_alpha, metadata=said)

    # What no price of the range would keep was left out of the computation, and is ranked.
    prompts = work.validation.whole()
    known: dict[float, Record] = {}

    def metrics_of(each: Circuit) -> Record:
        # Of one ranking, so that circuits of one size are the same.
        share = prunable_share(work.model.config, each.masks)
        if share not in known:
            known[share] = measured(prompts, each.masks, work.at_once)
        return known[share]

    refused = ""
    if config.max_kl is None:
        try:
            found = ranked.at(keep=config.keep, heads=config.heads)
        except MgnpError as error:
            # Heads that nothing tells apart; the ranking is not to be lost for that.
            refused = str(error)
            found = ranked if config.keep is None else ranked.at(keep=config.keep)
        heads = int(found.masks[ATTENTION_HEADS].sum())
        reached = heads if config.keep is None else metrics_of(found)["prunable_kept"]
    else:
        found = _near_enough(ranked, config.max_kl, lambda each: metrics_of(each)["kl"])
        reached = metrics_of(found)["kl"]
    told = {**config.asked, "reached": reached} | ({"refused": refused} if refused else {})
    masks, metrics = found.masks, metrics_of(found)
    price = float(price_of(scores, masks))
    record = validated(config, work.model.config, state.done, masks, metrics, price)
    record["target"] = told
    on_record({"step": state.done, "validation": record})
    check_measured(record)
    best = Best(log_alpha=best.log_alpha, masks=masks, record=record)
    return state.replace(best=best)  # type: ignore[attr-defined]


def _near_enough(ranked: Circuit, max_kl: float, kl: Callable[[Circuit], float]) -> Circuit:
    """The circuit of a KL, or all that is ranked where that is no nearer: a search is not lost."""
    whole = ranked.at(keep=1.0)
    if not kl(whole) <= max_kl:
        return whole
    return ranked.at(max_kl=max_kl, kl=kl)


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
    scores = votes = None
    log_alpha, masks = mean_of_votes(config, state.best.log_alpha), state.best.masks
    if config.nested:
        scores = log_price_of(config, log_alpha)
        metadata[RANKING] = together(work.model.config)
    if config.votes > 1:
        met = "target" in record and "refused" not in record["target"]
        few = config.heads if met else None
        no_larger = functools.partial(_no_larger, work.model.config, masks, few)
        votes = kept_by(config, state.best.log_alpha, no_larger)
    return Circuit(
        scores=scores,
        votes=votes,
        masks=masks,
        log_alpha=log_alpha,
        metadata=metadata,
        ablation_values=work.constants,
    )


def _no_larger(
    model_config: ModelConfig, than: Masks, heads: int | None, scores: Masks, own: Masks
) -> Masks:
    """The largest circuit of another ranking that keeps no more, with as few heads if so asked."""
    most = prunable_share(model_config, than)
    if not most:
        return full_masks(model_config, 0.0)
    graph, ranking = Graph.of(model_config), together(model_config)
    size = functools.partial(of_size, scores, graph, keep=most, ranking=ranking, own=own)
    try:
        return size(heads=heads)
    except MgnpError:
        # Nothing tells its highest heads apart.
        return size()
