"""What a circuit may consist of: types of its metadata, kinds and shapes of its arrays."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.masks.edges import READERS
from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES
from mgnp_jax.masks.levels import EDGE, LEVELS, level_of
from mgnp_jax.types import MgnpError

METADATA: dict[str, Any] = {
    **dict.fromkeys(("task", "model", "method", "note"), str),
    **dict.fromkeys(("config_hash", "weights_checksum", "data_checksum"), str),
    "origin": {
        **dict.fromkeys(("source", "metric"), str),
        **dict.fromkeys(("seed", "extra_corruptions", "train_prompts"), int),
        "skip_bad": bool,
    },
    "test_prompts": int,
    **dict.fromkeys(("data", "figures", "training", "environment", "validation"), {}),
    "graph": {**dict.fromkeys(("layers", "heads", "kv_heads"), int), "parallel": bool},
    "ranking": {"parameters": {}},
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

LEAST = {"seed": 0, "extra_corruptions": 0, "train_prompts": 1, "test_prompts": 1}
"""Least that the numbers among it may be."""


def check_metadata(what: str, metadata: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses metadata of other types than commands expect; what they do not read is free.

    Args:
      what: whose it is.
      metadata: JSON dict.
      wanted: types, as in `METADATA`.

    Raises:
      MgnpError: naming the entry, what was wanted and what was got.
    """
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
            check_metadata(f"{what}: {name}", value, kind)


def check_trees(what: str, trees: dict[str, Any]) -> None:
    """Refuses arrays that no circuit consists of: other names, shapes, types, or not numbers.

    Args:
      what: whose they are.
      trees: by name, as in `circuit.TREES`; masks are among them.

    Raises:
      MgnpError: naming the array, what was wanted and what was got.
    """
    for tree_name, tree in trees.items():
        _check_kinds(what, tree_name, tree)
    _check_shapes(what, trees)


def _check_kinds(what: str, tree_name: str, tree: Any) -> None:
    """Refuses what is no dict of arrays of the right type, and what are no numbers."""
    if not isinstance(tree, dict) or not all(hasattr(leaf, "dtype") for leaf in tree.values()):
        raise MgnpError(f"{what}: {tree_name} must be a dict of arrays by name")
    for name, leaf in tree.items():
        kind = np.bool_ if tree_name == "masks" else jnp.floating
        if not jnp.issubdtype(leaf.dtype, kind):
            raise MgnpError(f"{what}: {tree_name} {name} is {leaf.dtype}, wanted {kind.__name__}")
        if np.isnan(np.asarray(leaf)).any():
            raise MgnpError(f"{what}: {tree_name} {name} has values that are not numbers")
        if tree_name == "votes" and not ((np.asarray(leaf) >= 0) & (np.asarray(leaf) <= 1)).all():
            raise MgnpError(f"{what}: {tree_name} {name} must lie in [0, 1]")


def _check_shapes(what: str, trees: dict[str, Any]) -> None:
    """Refuses arrays of other kinds than one level has, or that are of different models."""
    masks = trees["masks"]
    if set(masks) - {EMBEDDING} not in (set(level.axes) for level in LEVELS.values()):
        raise MgnpError(
            f"{what}: the masks are of {', '.join(sorted(map(str, masks)))}; wanted "
            f"{', '.join(GRANULARITIES)}, and none but {EMBEDDING} beside them, or of edges "
            f"{', '.join(READERS)}"
        )
    shapes = {name: np.shape(mask) for name, mask in masks.items()}
    axes = level_of(masks).axes
    sizes: dict[str, int] = {}
    for name, fields in axes.items():
        for axis, size in zip(fields, shapes[name]):
            sizes.setdefault(axis, size)
    wanted = {name: tuple(sizes.get(axis) for axis in fields) for name, fields in axes.items()}
    wanted[EMBEDDING] = ()
    for tree_name in ("masks", "log_alpha", "scores", "votes"):
        for name, leaf in trees.get(tree_name, {}).items():
            if np.shape(leaf) != wanted.get(name):
                raise MgnpError(
                    f"{what}: {tree_name} {name} has the shape {np.shape(leaf)}, beside the other "
                    f"masks wanted {wanted.get(name, 'nothing of that name')}"
                )
    if "ablation_values" in trees:
        if level_of(masks) is EDGE:
            raise MgnpError(f"{what}: edges are given the corrupted run's values, no constants")
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
