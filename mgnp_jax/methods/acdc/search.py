"""The search: as if edges were tested one by one, though the next few are tried together.

That all of the next few go is bet on: each is tried with those before it removed. What was tried
after the first one that stays was tried in vain, and is tried again without it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from mgnp_jax.methods.acdc.order import Order, Reader, by_kind
from mgnp_jax.methods.acdc.trials import Trials
from mgnp_jax.methods.protocol import OnRecord, Saved, Saves
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError


class Found(NamedTuple):
    """What is known by now.

    Attributes:
      kept: [all] bool; of edges that are yet to be tested, True.
      done: edges that are decided, in the order of tests.
      tests: how many of them were tested; the others are of nodes that nothing reads.
      loss: of the circuit that is left.
    """

    kept: np.ndarray
    done: int
    tests: int
    loss: float


class Plan(NamedTuple):
    """What comes next if all that is tested is removed.

    Attributes:
      tests: places in the order of the next edges to be tested; those between go untested.
      stop: up to which place all is decided then.
    """

    tests: list[int]
    stop: int


def edges_removed(
    trials: Trials,
    tau: float,
    most_tests: int | None,
    on_record: OnRecord,
    saves: Saves | None,
) -> Found:
    """Removes every edge whose removal costs less than τ, from the logits backwards.

    Args:
      trials: prompts, figure and order.
      tau: least rise of the loss for which an edge is kept.
      most_tests: after so many the rest of the edges is kept; None for no end.
      on_record: told of every step, and of every layer.
      saves: where the state is put aside; None for nowhere.

    Raises:
      MgnpError: for a loss that is not a number.
    """
    saved = None if saves is None else saves.latest()
    found = _first(trials) if saved is None else _unpacked(saved)
    edges = len(trials.order.edges)
    while more(found, edges, most_tests):
        before = found
        found = _advanced(trials, tau, most_tests, before)
        for layer in _layers_done(trials.order, before.done, found.done):
            on_record({"text": _layer_text(trials, found, layer)})
        on_record({"passing": True, "step": found.done, "of": edges, **trials.said(found.loss)})
        if saves is not None:
            further = more(found, edges, most_tests)
            saves.between_steps(found.done, functools.partial(_packed, found), more=further)
    return found


def more(found: Found, edges: int, most_tests: int | None) -> bool:
    """Whether there is an edge that may be tested.

    Args:
      found: by now.
      edges: of the model.
      most_tests: that were asked for.
    """
    return found.done < edges and (most_tests is None or found.tests < most_tests)


def _first(trials: Trials) -> Found:
    kept = trials.order.ranks >= 0
    (loss,) = _checked(trials.losses(kept, 0, [-1]))
    return Found(kept=kept, done=0, tests=0, loss=float(loss))


def _advanced(trials: Trials, tau: float, most_tests: int | None, found: Found) -> Found:
    """One pass: up to and with the first edge that stays, or all that were tried."""
    most = trials.at_once
    if most_tests is not None:
        most = min(most, most_tests - found.tests)
    plan = planned(trials.model.config, trials.order, found, most)
    losses = np.zeros(0)
    if plan.tests:
        losses = _checked(trials.losses(found.kept, found.done, plan.tests))
    before = np.concatenate([[found.loss], losses])
    stays = np.flatnonzero(np.diff(before) >= tau)
    count = int(stays[0]) if len(stays) else len(plan.tests)
    stop = plan.tests[count] if len(stays) else plan.stop
    kept = found.kept.copy()
    kept[trials.order.edges[found.done : stop]] = False
    tests = found.tests + count + (1 if len(stays) else 0)
    done = stop + (1 if len(stays) else 0)
    return Found(kept=kept, done=done, tests=tests, loss=float(before[count]))


def planned(model_config: ModelConfig, order: Order, found: Found, most: int) -> Plan:
    """The next edges to be tested, if all of them are removed.

    Edges into a node that nothing reads go untested: whatever it reads changes nothing.

    Args:
      model_config: the model's shape.
      order: of the edges.
      found: by now.
      most: edges to be tested; at least one.
    """
    kept = found.kept.copy()
    arrays = by_kind(model_config, kept)
    tests: list[int] = []
    place, edges = found.done, len(order.edges)
    while place < edges and len(tests) < most:
        reader = order.of[place]
        stop = int(np.searchsorted(order.of, reader, side="right"))
        if is_read(arrays, order.readers[reader]):
            stop = min(stop, place + most - len(tests))
            tests += range(place, stop)
        kept[order.edges[place:stop]] = False
        place = stop
    return Plan(tests=tests, stop=place)


def is_read(arrays: dict[str, np.ndarray], reader: Reader) -> bool:
    """Whether what a reader's nodes write is read by anything that is kept.

    Args:
      arrays: bool by kind of reader.
      reader: that is asked about.
    """
    if not reader.writers:
        return True
    return any(bool(a[..., writer].any()) for a in arrays.values() for writer in reader.writers)


def _checked(losses: np.ndarray) -> np.ndarray:
    if not np.isfinite(losses).all():
        raise MgnpError(
            f"what edges are tested on is {losses[~np.isfinite(losses)][0]} for some circuit; "
            "look for prompts on which the model itself gives no numbers, and leave them out"
        )
    return losses


def _layers_done(order: Order, before: int, after: int) -> list[int]:
    """Layers whose last edge was decided from one step to the next; L stands for the logits."""
    last = np.flatnonzero(np.diff(order.layers, append=-1))
    return [int(order.layers[place]) for place in last if before <= place < after]


def _layer_text(trials: Trials, found: Found, layer: int) -> str:
    order = trials.order
    own = order.edges[order.layers == layer]
    into = "the logits" if layer == order.layers[0] else f"layer {layer}"
    ((name, value),) = trials.said(found.loss).items()
    return (
        f"{int(found.kept[own].sum()):,} of {len(own):,} edges into {into} stay: "
        f"{'KL' if name == 'kl' else name} {value:.4f} after {found.tests:,} tests"
    )


def _packed(found: Found) -> Saved:
    facts = {"tests": found.tests, "loss": found.loss}
    return Saved(done=found.done, trees={"edges": {"kept": found.kept}}, facts=facts)


def _unpacked(saved: Saved) -> Found:
    kept = np.asarray(saved.trees["edges"]["kept"], bool)
    return Found(kept=kept, done=saved.done, **saved.facts)
