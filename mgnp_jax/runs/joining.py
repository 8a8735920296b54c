"""How the processes of one program find each other, and part: flags, launchers, signs of life."""

from __future__ import annotations

import dataclasses

import jax

from mgnp_jax.runs.processes import Processes, joined
from mgnp_jax.types import MgnpError

JOINING = 120
"""Seconds in which all processes must have come."""

SIGNS_OF_LIFE = 25
"""Seconds after which JAX takes a silent process for dead, and ends the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joining:
    """How a process finds the others of its program."""

    distributed: bool = False
    """Share the work with other processes, started alike on this machine or others that see the
    same folders; the first writes. SLURM, Open MPI, Kubernetes and TPU pods tell which is which.
    --devices 1, the default, then means all of theirs."""
    coordinator: str | None = None
    """HOST:PORT of the first process, a free port there; where no launcher tells."""
    processes: int | None = None
    """How many processes there are; where no launcher tells."""
    process: int | None = None
    """Which of them this is, from 0; where no launcher tells. Of one machine's GPUs let each see
    its own (CUDA_VISIBLE_DEVICES)."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        given = {n: getattr(self, n) for n in ("coordinator", "processes", "process")}
        if not self.distributed:
            if named := [f"--{name}" for name, value in given.items() if value is not None]:
                raise MgnpError(f"{' and '.join(named)} go with --distributed alone; add it")
            return
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
                raise MgnpError(f"--coordinator must be HOST:PORT, got {self.coordinator!r}")
        if self.processes is not None and self.processes < 1:
            raise MgnpError(f"--processes must be at least 1, got {self.processes}")
        if self.process is not None and not 0 <= self.process < (self.processes or 2**31):
            most = "" if self.processes is None else f", below --processes {self.processes}"
            raise MgnpError(f"--process must be from 0 on{most}, got {self.process}")


def join(joining: Joining) -> Processes:
    """Waits for the other processes.

    Args:
      joining: how they are found.

    Raises:
      MgnpError: if that is not known, or they do not come.
    """
    # It would take SIGTERM, which here ends a run after a whole step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            joining.coordinator,
            joining.processes,
            joining.process,
            initialization_timeout=JOINING,
            heartbeat_timeout_seconds=SIGNS_OF_LIFE,
            shutdown_timeout_seconds=SIGNS_OF_LIFE,
        )
    # Of arguments, addresses and ports, by many types.
    except Exception as error:
        raise MgnpError(
            f"--distributed: the processes do not come together ({str(error).splitlines()[0]}). "
            "Under SLURM or Open MPI nothing else is needed; else pass --coordinator HOST:PORT "
            "(of the first process, the same for all), --processes N and --process 0, 1, … "
        ) from error
    found = joined()
    assert found is not None
    return found


def part() -> None:
    """Waits for the others and lets them go: from here on each works, and ends, by itself."""
    jax.distributed.shutdown()
