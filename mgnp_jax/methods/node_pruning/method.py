"""Node pruning as a method: its settings, and how they find a circuit."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.loop import find_circuit
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscoverConfig(Settings, Search):
    """Node pruning: loss weights, optimiser, schedules."""

    name: ClassVar[str] = "node-pruning"

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Trains gates and binarises them, see `Search.search`."""
        return find_circuit(key, model, data, self, on_record, saves)
