"""What a method is: a frozen config that finds a circuit."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import jax

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Record

OnRecord = Callable[[Record], None]
"""Called with a JSON dict whenever there is something to say, all of which lands in metrics.jsonl.

`step` moves the bar, with `loss` and other floats beside it; `validation` (a dict with any of
`step`, `kl`, `score`, `base_score`, `accuracy`, `kept`) and `text` are a line each. `prepared` of
`of` prompts says how far the preparations are, and alone does not land there."""


class Method(Protocol):
    """A way to find circuits: a frozen dataclass of everything that can be set about it.

    Its fields are flags on the command line (their docstrings the help) and land in the run's
    config.json. `METHODS` has those built in; any other is used just as well. Some fields mean
    the same in all methods that have them: `steps` is the length of the bar, `execution` how
    passes are run, `penalty` what a sweep goes through, `keep` and `max_kl` what is asked for.

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
