"""A state, or the circuit found, as a folder on disk that is noticed when it is damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mgnp_jax.checkpoint import load_trees, save_trees, writing
from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.methods.protocol import Saved
from mgnp_jax.types import MgnpError, Record, checksum

STATE = "step-" + 8 * "[0-9]"
"""Pattern of the names of states; whatever else lies in their folder is not touched."""


def state_name(done: int) -> str:
    """Of the folder of a state.

    Args:
      done: steps done.
    """
    return f"step-{done:08d}"


class GoneOnFrom:
    """What a search goes on from, as `Saves` has it, once it is read."""

    _latest: Saved | None = None
    _found: Circuit | None = None

    def latest(self) -> Saved | None:
        """The state to go on from, see `Saves.latest`."""
        return self._latest

    def found(self) -> Circuit | None:
        """What was found, see `Saves.found`."""
        return self._found


def write_state(path: Path, trees: dict[str, Any], facts: Record) -> None:
    """Writes a state.

    Args:
      path: its folder, not there yet.
      trees: as `Saved.trees`.
      facts: with `done`, `method` (as `Saved.facts`), and what else belongs to it.
    """
    facts = {**facts, "checksum": checksum(trees, facts)}
    with writing(path, trees):
        save_trees(path, trees, facts)


def read_state(path: Path) -> tuple[Saved, Record]:
    """Reads a state and all of its facts.

    Args:
      path: its folder.

    Raises:
      MgnpError: if it is damaged.
    """
    trees, facts = load_trees(path)
    wanted = facts.pop("checksum", None)
    if wanted != checksum(trees, facts):
        raise MgnpError("its checksum is another than the one that was saved with it")
    return Saved(done=facts["done"], trees=trees, facts=facts["method"]), facts


def write_circuit(path: Path, circuit: Circuit, facts: Record) -> None:
    """Writes the circuit that a search has found.

    Args:
      path: its folder, not there yet.
      circuit: what was found.
      facts: of which search it is.
    """
    metadata = {**circuit.metadata, "states": facts}
    with writing(path, (circuit.masks, circuit.log_alpha, circuit.scores)):
        dataclasses.replace(circuit, metadata=metadata).save(path)


def read_circuit(path: Path) -> tuple[Circuit, Record]:
    """Reads a circuit that a search has found, and the facts saved with it.

    Args:
      path: its folder.

    Raises:
      MgnpError: if it is damaged.
    """
    circuit = load_circuit(path)
    metadata = dict(circuit.metadata)
    facts = metadata.pop("states", None)
    if facts is None:
        raise MgnpError("it does not say of which search it is")
    return dataclasses.replace(circuit, metadata=metadata), facts
