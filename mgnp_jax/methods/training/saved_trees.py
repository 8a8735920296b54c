"""What a training loop moves, as arrays by name that can be put aside."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mgnp_jax.methods.protocol import Saved
from mgnp_jax.types import MgnpError

Tree = TypeVar("Tree", bound=Any)

MOVING = "moving"
"""Name of what steps move, among the trees of a saved state."""


def by_name(tree: Any) -> dict[str, Any]:
    """Arrays by where they are in a tree.

    Args:
      tree: pytree.
    """
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def restored(first: Tree, saved: Saved) -> Tree:
    """What was put aside under `MOVING`, bit for bit.

    Args:
      first: what it was made of before the first step of the same search.
      saved: the state.

    Raises:
      MgnpError: if it is made of other arrays than this version's, as optax's may be.
    """
    old = saved.trees[MOVING]
    wanted, got = ({n: leaf.shape for n, leaf in each.items()} for each in (by_name(first), old))
    other = sorted(name for name in wanted | got if wanted.get(name) != got.get(name))
    if other:
        name = other[0]
        raise MgnpError(
            f"the state of step {saved.done} does not fit this version of optax or mgnp_jax: "
            f"{len(other):,} of its arrays, such as {name} (wanted of shape "
            f"{wanted.get(name, 'none')}, got {got.get(name, 'none')}); go on with the versions "
            "that it was saved with, or begin anew in another folder"
        )
    return jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(old[jax.tree_util.keystr(path)], leaf.dtype), first
    )
