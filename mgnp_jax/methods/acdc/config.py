"""ACDC as a method: its settings, and the circuit that a search has found."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax

from mgnp_jax.choices import check_choices
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.acdc.order import by_kind, order_of
from mgnp_jax.methods.acdc.search import Found, edges_removed, more
from mgnp_jax.methods.acdc.trials import trials_of
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.metrics.figures import FigureName
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import MgnpError, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcdcConfig(Search):
    """Removes edges one by one from the logits backwards, unless that costs too much.

    It ranks nothing, so its circuit has one size, which `tau` decides; for another, find another.
    """

    name: ClassVar[str] = "acdc"

    tau: float = 0.01
    """An edge is kept if without it the KL to the full model (or what `effect_on` says) is worse
    by so much, or more: in nats, in the unit of the score, or in probability."""
    effect_on: FigureName = "kl"
    """What removals are measured on: KL to the full model; or how far the task's score, or the
    probability of right answers less that of wrong ones, falls: what improves it is removed at any
    `tau`."""
    prompts: int | None = 32
    """Training prompts that edges are tested on, from all over the split; None for all. Time and
    memory grow with it."""
    most_tests: int | None = None
    """Test so many edges only, and keep the rest, which are those into the earliest layers."""
    at_once: int | None = None
    """Removals that are tried in one pass; those after the first edge that stays are tried again.
    Changes nothing but time, memory and rounding. By default 1 on CPUs, and elsewhere up to 16."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        if not 0 < self.tau < math.inf:
            raise MgnpError(f"tau must be greater than 0, got {self.tau}")
        check_choices(self)
        for name in ("prompts", "most_tests", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise MgnpError(f"{name} must be at least 1 (or None), got {value}")

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Tests one edge after another, see `Search.search`."""
        del key
        order = order_of(model.config)
        batch = data.train.spread(self.prompts)
        trials = trials_of(model, batch, self.effect_on, order, self.at_once)
        found = edges_removed(trials, self.tau, self.most_tests, on_record, saves)
        masks = jax.device_put(by_kind(model.config, found.kept))
        return Circuit(masks=masks, metadata=self._said(found, len(order.edges)))

    def _said(self, found: Found, edges: int) -> Record:
        """What is to be known of how the circuit was found."""
        unread = found.done - found.tests
        said: Record = {
            "acdc": {"tests": found.tests, "unread": unread, "left": edges - found.done}
        }
        if more(found, edges, None):
            said["note"] = (
                f"Stopped after {found.tests:,} tests, as most_tests says: the other "
                f"{edges - found.done:,} of {edges:,} edges, those into the earliest layers, were "
                "not tested and are kept where something reads what they lead to"
            )
        return said
