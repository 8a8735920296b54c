"""Finding a circuit by a learned ranking: what makes `Learned` a `Method`."""

from __future__ import annotations

import abc
import dataclasses

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.methods.learned.config import Learned
from mgnp_jax.methods.learned.loop import find_learned
from mgnp_jax.methods.protocol import OnRecord, Saves, Search
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedMethod(Learned, Search, abc.ABC):
    """Settings that can find a circuit."""

    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Learns the ranking and keeps the circuit of the size, see `Search.search`."""
        return find_learned(key, model, data, self, on_record, saves)
