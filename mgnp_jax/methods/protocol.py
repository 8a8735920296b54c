"""What a method is: a frozen config that finds a circuit, and may go on where it was stopped."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.programs import Programs
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Batch, Record

OnRecord = Callable[[Record], None]
"""Called with a JSON dict whenever there is something to say, all of which lands in metrics.jsonl.

`step` moves the bar, `of` so many where the method has no `steps`, with `loss` and other floats
beside it; `validation` (a dict with any of `step`, `kl`, `score`, `base_score`, `accuracy`, `kept`)
and `text` are a line each. `prepared` of `of` prompts says how far the preparations are. What is
`passing` is shown and does not land there: it is of this process (memory, preparations), not of
the search."""


CIRCUITS = ("within", "like")
"""Settings that name the folder of another saved circuit, in whichever method has them: what it is
counts, not where it lies. A method that works within one has its own say on how much it keeps."""


class Method(Protocol):
    """A way to find circuits: a frozen dataclass of everything that can be set about it.

    Its fields are flags on the command line (their docstrings the help) and land in the run's
    config.json. `METHODS` has those built in; any other is used just as well. Some fields mean
    the same in all methods that have them: `steps` is the length of the bar, `execution` how
    passes are run, `keep` and `max_kl` what is asked for, those of `CIRCUITS` another
    circuit. One that takes long should be `Resumable`, too; any other is begun again when it was
    stopped.

    Attributes:
      name: as on the command line.
    """

    name: ClassVar[str]

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Finds the circuit of a task.

        Args:
          key: [] typed key; consumed. The same key gives the same circuit on one machine.
          model: its weights are read only.
          data: training and validation prompts; those of the test split are not to be seen.
          on_record: to say how it goes.

        Returns:
          Binary masks; `metadata` with what is to be known of how they were found. `discover`
          closes what the hierarchy closes, and adds where they are from.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Saved:
    """A search between two steps, put aside.

    Attributes:
      done: steps done.
      trees: by name, dicts of NumPy arrays that nothing else will write to.
      facts: whatever else there is to know, a JSON dict.
    """

    done: int
    trees: dict[str, Any]
    facts: Record


class Saves(Protocol):
    """Where `discover` and a method that can go on put aside what they have.

    Attributes:
      seconds: that were spent up to the state that is gone on from.
    """

    seconds: float

    def open(self, search: Record, environment: Record) -> None:
        """Looks up what there is, before the search.

        Args:
          search: what decides its result, a JSON dict.
          environment: on what, and with which versions, it is computed, a JSON dict; in another
            one the result may differ by rounding.

        Raises:
          MgnpError: if what there is belongs to another search.
        """
        ...

    def latest(self) -> Saved | None:
        """The state to go on from; None to begin."""
        ...

    def between_steps(self, done: int, state: Callable[[], Saved], *, more: bool) -> None:
        """To be called after every step: puts the state aside when that is due.

        Args:
          done: steps done.
          state: makes it; not called when nothing is due.
          more: whether another step follows, after which this is called again.

        Raises:
          KeyboardInterrupt: if the user asked to stop; the state has been put aside.
        """
        ...

    def keep(self, state: Saved) -> str:
        """Puts a state aside at once, as a search does that cannot go on.

        Args:
          state: to be found by `latest`.

        Returns:
          Where it is.
        """
        ...

    def found(self) -> Circuit | None:
        """What the search has found, if it is over."""
        ...

    def finish(self, circuit: Circuit) -> None:
        """Puts aside what the search has found.

        Args:
          circuit: to be returned by `found`.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A method that can go on: one that has this beside what `Method` wants."""

    def find_from(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves
    ) -> Circuit:
        """`find` that goes on from `saves.latest()`, to the same circuit bit for bit.

        Args:
          key: as for `find`, and the same as before.
          model: as for `find`.
          data: as for `find`.
          on_record: as for `find`.
          saves: to be told of every step.
        """
        ...


@runtime_checkable
class Planned(Protocol):
    """A method whose cost is known from shapes alone: it has this beside what `Method` wants."""

    def programs(self, model_config: ModelConfig, train: Batch) -> Programs:
        """What a search runs again and again, ready to be compiled; nothing is run.

        Args:
          model_config: the model's shape.
          train: the training prompts.

        Raises:
          MgnpError: if there is no such search of this model or these prompts.
        """
        ...


class Search(abc.ABC):
    """What makes a method of one function that can begin or go on: `Method` and `Resumable`."""

    @abc.abstractmethod
    def search(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves | None
    ) -> Circuit:
        """Finds the circuit, see `Method.find` and `Resumable.find_from`.

        Args:
          key: as for `find`.
          model: as for `find`.
          data: as for `find`.
          on_record: as for `find`.
          saves: as for `find_from`; None for nowhere.
        """

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Begins, see `Method.find`."""
        return self.search(key, model, data, on_record, None)

    def find_from(
        self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord, saves: Saves
    ) -> Circuit:
        """Goes on, see `Resumable.find_from`."""
        return self.search(key, model, data, on_record, saves)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a circuit was searched for, which had one to show by then.

    Attributes:
      circuit: the best so far.
    """

    def __init__(self, circuit: Circuit) -> None:
        """Carries the circuit to whoever saves it.

        Args:
          circuit: the best so far.
        """
        super().__init__("stopped by the user; .circuit is the best so far")
        self.circuit = circuit
