"""A circuit: which nodes are kept. Extraction, saving, loading."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from mgnp_jax.checkpoint import load_trees, save_trees
from mgnp_jax.masks.granularities import apply_hierarchy
from mgnp_jax.masks.hard_concrete import is_open
from mgnp_jax.types import Masks, MgnpError, StandIn, checksum

TREES = {"masks", "log_alpha", "stand_in"}
"""What a saved circuit may hold."""


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
      log_alpha: float32 arrays by granularity, from which the masks were taken.
      metadata: JSON dict: model, config_hash, task, gates, training, figures.
      stand_in: constants that pruned nodes are given; None for the corrupted run's values.
    """

    masks: Masks
    log_alpha: Masks
    metadata: dict[str, Any]
    stand_in: StandIn | None = None

    def save(self, path: str | Path) -> None:
        """Writes the circuit as an Orbax checkpoint with a checksum.

        Args:
          path: new or empty folder.

        Raises:
          MgnpError: if the folder holds something already.
        """
        trees: dict[str, Any] = {"masks": self.masks, "log_alpha": self.log_alpha}
        if self.stand_in is not None:
            trees["stand_in"] = self.stand_in
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
    if wanted is None or not {"masks", "log_alpha"} <= set(trees) <= TREES:
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
    masks, log_alpha = jax.device_put((trees["masks"], trees["log_alpha"]))
    stand_in = trees.get("stand_in")
    return Circuit(masks=masks, log_alpha=log_alpha, metadata=metadata, stand_in=stand_in)
