"""A circuit: which nodes are kept. Extraction, saving, loading."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.checkpoint import load_trees, save_trees
from mgnp_jax.files import shown
from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES, TABLE, as_bool
from mgnp_jax.masks.hard_concrete import is_open
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.types import AblationValues, Masks, MgnpError, checksum, plain_json

TREES = ("masks", "log_alpha", "scores", "ablation_values")
"""What a saved circuit may hold; masks it must."""

METADATA: dict[str, Any] = {
    **dict.fromkeys(("task", "model", "method", "note"), str),
    **dict.fromkeys(("config_hash", "weights_checksum", "data_checksum"), str),
    "origin": {
        **dict.fromkeys(("source", "metric"), str),
        **dict.fromkeys(("seed", "extra_corruptions"), int),
        "skip_bad": bool,
    },
    "test_prompts": int,
    **dict.fromkeys(("data", "figures", "training", "environment", "validation"), {}),
    "warnings": list,
}
"""Types of what the commands read of a circuit's metadata, where it is there and not null."""

PROJECTED = ("attn_projected", "mlp_projected")
"""Sites that models with a norm after each block have beside the others."""

SITES = {
    EMBEDDING: ("width",),
    "attn_z": ("layers", "heads", "head_width"),
    "mlp_hidden": ("layers", "mlp_width"),
    **dict.fromkeys(("attn_out", "mlp_out", *PROJECTED), ("layers", "width")),
}
"""Axes of the constants that a circuit may give to pruned nodes, by site."""

LEAST = {"seed": 0, "extra_corruptions": 0, "test_prompts": 1}
"""Least that the numbers among it may be."""


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
        """Writes the circuit as an Orbax checkpoint, with a checksum of arrays and metadata.

        Args:
          path: new or empty folder.

        Raises:
          MgnpError: if the folder holds something already, masks are not binary, an array is of
            another shape than its granularity or has values that are no numbers, or metadata has
            another type or range than `METADATA` and `LEAST` say.
        """
        found = {name: getattr(self, name) for name in TREES}
        trees = {name: tree for name, tree in found.items() if tree is not None}
        trees["masks"] = as_bool(self.masks)
        _check_trees("the circuit", trees)
        metadata = plain_json(self.metadata)
        _check_metadata("the circuit", metadata, METADATA)
        save_trees(Path(path), trees, {"circuit": metadata, "sha256": checksum(trees, metadata)})


def load_circuit(path: str | Path) -> Circuit:
    """Reads a circuit that `Circuit.save` wrote; safe with one from a stranger.

    Args:
      path: its folder, or a run's folder that has it as `circuit/`.

    Returns:
      The circuit, bit for bit.

    Raises:
      MgnpError: if there is none, arrays or metadata do not match their checksum, or they are not
        what a circuit consists of.
    """
    folder = Path(path)
    if (folder / "circuit").is_dir():
        folder = folder / "circuit"
    trees, saved = load_trees(folder, TREES)
    if isinstance(saved.get("circuit"), dict):
        metadata, wanted = saved["circuit"], saved.get("sha256")
        got = checksum(trees, metadata)
    else:
        # The layout whose checksum is of the arrays alone; nothing else tells what it protects.
        wanted = saved.pop("checksum", None)
        metadata, got = saved, checksum(trees)
    if not isinstance(wanted, str) or "masks" not in trees:
        raise MgnpError(
            f"{folder} holds no circuit; wanted the folder that circuit.save() wrote, or a run's "
            "folder that has it as circuit/"
        )
    if wanted != got:
        raise MgnpError(
            f"{folder}: the checksum of its arrays and metadata is {got[:16]!r}, but "
            f"{wanted[:16]!r} was saved with them; the folder was changed or damaged, find the "
            "circuit again or restore it"
        )
    _check_trees(str(folder), trees)
    _check_metadata(str(folder), metadata, METADATA)
    constants = trees.pop("ablation_values", None)
    return Circuit(**jax.device_put(trees), ablation_values=constants, metadata=metadata)


def _check_metadata(what: str, metadata: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses metadata of other types than commands expect; what they do not read is free."""
    for name, kind in wanted.items():
        value = metadata.get(name)
        of = dict if isinstance(kind, dict) else kind
        if value is None:
            continue
        if not isinstance(value, of) or (of is int and isinstance(value, bool)):
            raise MgnpError(f"{what}: metadata {name} must be {of.__name__}, got {shown(value)}")
        if name in LEAST and value < LEAST[name]:
            raise MgnpError(f"{what}: metadata {name} must be at least {LEAST[name]}, got {value}")
        if isinstance(kind, dict):
            _check_metadata(f"{what}: {name}", value, kind)


def _check_trees(what: str, trees: dict[str, Any]) -> None:
    """Refuses arrays that no circuit consists of: other names, shapes, types, or not numbers."""
    for tree_name, tree in trees.items():
        if not isinstance(tree, dict) or not all(hasattr(leaf, "dtype") for leaf in tree.values()):
            raise MgnpError(f"{what}: {tree_name} must be a dict of arrays by name")
        for name, leaf in tree.items():
            kind = np.bool_ if tree_name == "masks" else jnp.floating
            if not jnp.issubdtype(leaf.dtype, kind):
                raise MgnpError(
                    f"{what}: {tree_name} {name} is {leaf.dtype}, wanted {kind.__name__}"
                )
            if np.isnan(np.asarray(leaf)).any():
                raise MgnpError(f"{what}: {tree_name} {name} has values that are not numbers")
    masks = trees["masks"]
    if set(masks) - {EMBEDDING} != set(GRANULARITIES):
        raise MgnpError(
            f"{what}: the masks are of {', '.join(sorted(map(str, masks)))}; wanted "
            f"{', '.join(GRANULARITIES)}, and none but {EMBEDDING} beside them"
        )
    shapes = {name: np.shape(mask) for name, mask in masks.items()}
    sizes: dict[str, int] = {}
    for name, kind in TABLE.items():
        for axis, size in zip(kind.axes, shapes[name]):
            sizes.setdefault(axis, size)
    wanted = {name: tuple(sizes.get(axis) for axis in TABLE[name].axes) for name in GRANULARITIES}
    wanted[EMBEDDING] = ()
    for tree_name in ("masks", "log_alpha", "scores"):
        for name, leaf in trees.get(tree_name, {}).items():
            if np.shape(leaf) != wanted.get(name):
                raise MgnpError(
                    f"{what}: {tree_name} {name} has the shape {np.shape(leaf)}, beside the other "
                    f"masks wanted {wanted.get(name, 'nothing of that name')}"
                )
    if "ablation_values" in trees:
        _check_constants(what, trees["ablation_values"], sizes)


def _check_constants(what: str, constants: dict[str, Any], sizes: dict[str, int]) -> None:
    """Refuses constants of other sites or shapes than a model of the masks' shape has."""
    if EMBEDDING not in constants or set(constants) - set(SITES):
        raise MgnpError(
            f"{what}: the ablation_values are of {', '.join(sorted(map(str, constants)))}; wanted "
            f"{EMBEDDING}, and none but {', '.join(SITES)}"
        )
    for name, leaf in constants.items():
        wanted = tuple(sizes[axis] for axis in SITES[name])
        if np.shape(leaf) != wanted:
            raise MgnpError(
                f"{what}: ablation_values {name} has the shape {np.shape(leaf)}, beside the masks "
                f"wanted {wanted}"
            )
