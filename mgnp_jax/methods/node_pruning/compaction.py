"""Nodes that training has closed for good leave the computation.

A gate counts as closed for good when its node is drawn open less often than `closed_below`. From
then on it is not drawn and its log-alpha does not move: what goes on is the same objective,
restricted to what is still open. With first-order gates, whose slope does not fall with the
noise, some of these might have opened again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.hard_concrete import THRESHOLD
from mgnp_jax.masks.hierarchy import chance_of_acting
from mgnp_jax.passes.compaction import what_stays
from mgnp_jax.types import Masks


def still_open(
    log_alpha: Masks, noise: float, closed_below: float, shift: float = 0.0
) -> dict[str, np.ndarray]:
    """Which nodes are drawn open often enough to count, hierarchy included.

    Args:
      log_alpha: [L, …] by granularity.
      noise: scale of the gates' noise.
      closed_below: least chance of being drawn open of a node that still counts.
      shift: added to log-alpha where a gate is most likely to be open.

    Returns:
      [L, …] bool by granularity.
    """
    # Without noise a gate is either open or not.
    scale = max(noise, 1e-3)
    chance = {
        name: np.exp(-np.logaddexp(0.0, (THRESHOLD - shift - leaf.astype(np.float64)) / scale))
        for name, leaf in jax.device_get(log_alpha).items()
    }
    acting = chance_of_acting(chance)
    return what_stays({name: leaf >= closed_below for name, leaf in acting.items()})


def closed(log_alpha: Masks, left: Masks, shift: float = 0.0) -> Masks:
    """Log-alpha whose own gate is closed wherever the node is.

    A node may be closed for good by its block alone. The block may open again for the
    nodes that are left in it; those that were left out must then stay closed.

    Args:
      log_alpha: [L, …] by granularity.
      left: [L, …] bool by granularity; False where closed for good.
      shift: added to log-alpha where a gate is most likely to be open.
    """
    return {
        name: jnp.where(left[name], leaf, jnp.minimum(leaf, THRESHOLD - 1 - shift))
        if name in left
        else leaf
        for name, leaf in log_alpha.items()
    }


def hold(new: Masks, old: Masks, left: Masks | None) -> Masks:
    """Log-alpha that moves only where a gate is not closed for good.

    Args:
      new: [L, …] by granularity, after a step.
      old: before it.
      left: [L, …] bool by granularity; False where closed for good; None if nothing is.
    """
    if left is None:
        return new
    return {
        name: jnp.where(left[name], leaf, old[name]) if name in left else leaf
        for name, leaf in new.items()
    }


def beyond(now: dict[str, np.ndarray], left: Masks | None) -> bool:
    """Whether a node is open that was left out.

    Args:
      now: [L, …] bool by granularity, what is open.
      left: the same of what is left; None for everything.
    """
    if left is None:
        return False
    return any(bool((mask & ~np.asarray(left[name])).any()) for name, mask in now.items())


def only(left: dict[str, np.ndarray], before: Masks | None) -> dict[str, Any]:
    """What is left of what was left before: what is out stays out.

    Args:
      left: [L, …] bool by granularity.
      before: the same; None for everything.
    """
    if before is None:
        return left
    return {name: mask & np.asarray(before[name]) for name, mask in left.items()}
