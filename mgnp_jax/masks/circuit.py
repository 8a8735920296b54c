"""A circuit: which nodes are kept. Extraction, saving, loading."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from mgnp_jax.checkpoint import load_trees, save_trees
from mgnp_jax.masks.hard_concrete import is_open
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.types import AblationValues, Masks, MgnpError, checksum

REQUIRED, OPTIONAL = {"masks"}, {"log_alpha", "scores", "ablation_values"}
"""What a saved circuit must, and may, hold."""


@jax.jit
def binarise(log_alpha: Masks) -> Masks:
    """Equation 8, then the hierarchy both ways.

    Args:
      log_alpha: float arrays by granularity.

    Returns:
      Bool arrays by granularity; True is kept.
    """
    return apply_hierarchy(jax.tree.map(is_open, log_alpha))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circuit:
    """The nodes that do a task, and where they came from.

    Attributes:
      masks: bool arrays by granularity, consistent with the hierarchy; True is kept.
      metadata: JSON dict: method and its config, model, task, prompts, figures.
      log_alpha: float32 arrays by granularity, from which the masks were taken; None where the
        method trains no gates.
      scores: float32 arrays by granularity, where the method ranks nodes; higher is kept longer.
      ablation_values: constants that pruned nodes are given; None for the corrupted run's values.
    """

    masks: Masks
    metadata: dict[str, Any]
    log_alpha: Masks | None = None
    scores: Masks | None = None
    ablation_values: AblationValues | None = None

    def save(self, path: str | Path) -> None:
        """Writes the circuit as an Orbax checkpoint with a checksum.

        Args:
          path: new or empty folder.

        Raises:
          MgnpError: if the folder holds something already.
        """
        found = {name: getattr(self, name) for name in sorted(REQUIRED | OPTIONAL)}
        trees = {name: tree for name, tree in found.items() if tree is not None}
        metadata = {**self.metadata, "checksum": checksum(trees)}
        save_trees(Path(path), trees, metadata)


def load_circuit(path: str | Path) -> Circuit:
    """Reads a circuit that `Circuit.save` wrote.

    Args:
      path: its folder, or a run's folder that has it as `circuit/`.

    Returns:
      The circuit, bit for bit.

    Raises:
      MgnpError: if there is none, or its arrays do not match its checksum.
    """
    folder = Path(path)
    if (folder / "circuit").is_dir():
        folder = folder / "circuit"
    trees, metadata = load_trees(folder)
    wanted = metadata.pop("checksum", None)
    if wanted is None or not REQUIRED <= set(trees) <= REQUIRED | OPTIONAL:
        raise MgnpError(
            f"{folder} holds no circuit; wanted the folder that circuit.save() wrote, or a run's "
            "folder that has it as circuit/"
        )
    got = checksum(trees)
    if wanted != got:
        raise MgnpError(
            f"{folder}: the arrays' checksum is {got[:16]}…, but {wanted[:16]}… was saved "
            "with them; the folder was changed or damaged, find the circuit again or restore it"
        )
    constants = trees.pop("ablation_values", None)
    return Circuit(**jax.device_put(trees), ablation_values=constants, metadata=metadata)
