"""Finding a circuit by a learned ranking: what makes `Learned` a `Method`."""

from __future__ import annotations

import abc
import dataclasses

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.learned.config import Learned
from mgnp_jax.methods.learned.loop import find_learned
from mgnp_jax.methods.protocol import OnRecord, Saves
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedMethod(Learned, abc.ABC):
    """Settings that can find a circuit."""

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Learns the ranking and keeps the circuit of the size, see `Method.find`."""
        return find_learned(key, model, data, self, on_record)

    def find_from(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves
    ) -> Circuit:
        """Goes on with it, see `Resumable.find_from`."""
        return find_learned(key, model, data, self, on_record, saves)
