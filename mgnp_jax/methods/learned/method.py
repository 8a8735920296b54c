"""Finding a circuit by a learned ranking: what makes `Learned` a `Method`."""

from __future__ import annotations

import abc
import dataclasses

import jax
from jax.stages import Traced

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.learned.config import Learned
from mgnp_jax.methods.learned.loop import find_learned
from mgnp_jax.methods.learned.step import first_learning, learned_step
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.methods.training.programs import Replicated, trained_programs
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.programs import Programs
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedMethod(Learned, Search, abc.ABC):
    """Settings that can find a circuit."""

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Learns the ranking and keeps the circuit of the size, see `Search.search`."""
        return find_learned(key, model, data, self, on_record, saves)

    def programs(self, model_config: ModelConfig, train: Batch) -> Programs:
        """A step and plain passes, see `Planned.programs`."""
        return trained_programs(self, model_config, train, self._traced)

    def _traced(
        self, model_config: ModelConfig, params: Params, runs: CachedRuns, replicated: Replicated
    ) -> Traced:
        config, key = self.of_a_step, jax.eval_shape(jax.random.key, 0)
        state = jax.eval_shape(lambda root: first_learning(config, model_config, root), key)
        fixed = self.fixed(model_config, self.size(model_config))
        key, state, fixed = replicated((key, state, fixed))
        return learned_step.trace(config, model_config, key, params, fixed, state, runs)
