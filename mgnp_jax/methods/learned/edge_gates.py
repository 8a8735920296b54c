"""What methods of edges share: which edges may be kept, and their gates as they rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.masks.edges import READERS, edge_count, edge_shapes, existing
from mgnp_jax.masks.levels import check_masks, level_of
from mgnp_jax.methods.learned.config import Fixed
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def edges_within(model_config: ModelConfig, within: Path | None) -> Masks:
    """The edges that may be kept.

    Args:
      model_config: the model's shape.
      within: folder of a saved circuit, of nodes or edges, whose edges they are; None for all.

    Returns:
      Bool arrays by kind of reader.

    Raises:
      MgnpError: if the circuit cannot be read, or is of another model's shape.
    """
    there = existing(model_config)
    if within is None:
        return jax.device_put(there)
    masks = load_circuit(within).masks
    check_masks(model_config, masks, f"the masks of {within}")
    return level_of(masks).edges(model_config, masks)


def fixed_edges(model_config: ModelConfig, there: Masks, keep: int) -> Fixed:
    """What stays in every step.

    Args:
      model_config: the model's shape.
      there: bool by kind of reader, edges that may be kept.
      keep: how many to keep at the end.
    """
    everything = edge_count(existing(model_config))
    before, target = edge_count(there) / everything, keep / everything
    return Fixed(there, jnp.float32(before), jnp.float32(target))


def each_edge(
    key: jax.Array,
    model_config: ModelConfig,
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array],
) -> Masks:
    """One number for every edge.

    Args:
      key: [] typed key; consumed.
      model_config: the model's shape.
      draw: (key, shape) → array.

    Returns:
      Arrays by kind of reader.
    """
    keys = jax.random.split(key, len(READERS))
    return {name: draw(k, s) for k, (name, s) in zip(keys, edge_shapes(model_config).items())}


def mean_over(there: Masks, values: Masks) -> jax.Array:
    """Mean over the edges that may be kept, [].

    Args:
      there: bool by kind of reader.
      values: float of the same kinds.
    """
    total = sum((values[name] * mask).sum() for name, mask in there.items())
    return jnp.asarray(total) / sum(mask.sum() for mask in there.values())


def ranked_edges(there: Masks, values: Masks) -> Masks:
    """The numbers as scores: −∞ where no edge may be kept.

    Args:
      there: bool by kind of reader.
      values: float of the same kinds.
    """
    return {name: jnp.where(mask, values[name], -np.inf) for name, mask in there.items()}
