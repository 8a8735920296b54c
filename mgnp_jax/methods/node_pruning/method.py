"""Node pruning as a method: its settings, and how they find a circuit."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from jax.stages import Traced

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.loop import find_circuit
from mgnp_jax.methods.node_pruning.state import first_trained
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.methods.training.programs import Replicated, trained_programs
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.programs import Programs
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscoverConfig(Settings, Search):
    """Node pruning: loss weights, optimiser, schedules."""

    name: ClassVar[str] = "node-pruning"

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Trains gates and binarises them, see `Search.search`."""
        return find_circuit(key, model, data, self, on_record, saves)

    def programs(self, model_config: ModelConfig, train: Batch) -> Programs:
        """A step of the whole model and plain passes, see `Planned.programs`."""
        return trained_programs(self, model_config, train, self._traced, copies=self.copies)

    def _traced(
        self, model_config: ModelConfig, params: Params, runs: CachedRuns, replicated: Replicated
    ) -> Traced:
        config = self.of_a_step
        key = jax.eval_shape(jax.random.key, 0)
        state = jax.eval_shape(lambda root: first_trained(config, model_config, root), key)
        key, state = replicated((key, state))
        return train_step.trace(config, model_config, key, params, state, runs, None, None)
