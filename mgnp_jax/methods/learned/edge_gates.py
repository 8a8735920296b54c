"""What methods of edges share: which edges may be kept, and their gates as they rank."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import load_circuit
from mgnp_jax.masks.edges import READERS, edge_count, edge_shapes, existing
from mgnp_jax.masks.levels import check_masks, level_of
from mgnp_jax.methods.learned.config import Fixed
from mgnp_jax.methods.learned.method import LearnedMethod
from mgnp_jax.methods.sizing import Sizing
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def edges_within(model_config: ModelConfig, within: Path) -> Masks:
    """The edges of a saved circuit, of nodes or edges.

    Args:
      model_config: the model's shape.
      within: its folder.

    Returns:
      Bool arrays by kind of reader.

    Raises:
      MgnpError: if the circuit cannot be read, or is of another model's shape.
    """
    masks = load_circuit(within).masks
    check_masks(model_config, masks, f"the masks of {within}")
    return level_of(masks).edges(model_config, masks)


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


def key_each(key: jax.Array, gates: Masks) -> dict[str, jax.Array]:
    """A key for each kind of edges.

    Args:
      key: [] typed key; consumed.
      gates: arrays by kind of reader.
    """
    return dict(zip(sorted(gates), jax.random.split(key, len(gates))))


def count_of(there: Masks) -> jax.Array:
    """How many edges may be kept, [].

    Args:
      there: bool by kind of reader.
    """
    return jnp.asarray(sum(mask.sum() for mask in there.values()))


def mean_over(there: Masks, values: Masks) -> jax.Array:
    """Mean over the edges that may be kept, [].

    Args:
      there: bool by kind of reader.
      values: float of the same kinds.
    """
    total = sum((values[name] * mask).sum() for name, mask in there.items())
    return jnp.asarray(total) / count_of(there)


def ranked_edges(there: Masks, values: Masks) -> Masks:
    """The numbers as scores: −∞ where no edge may be kept.

    Args:
      there: bool by kind of reader.
      values: float of the same kinds.
    """
    return {name: jnp.where(mask, values[name], -np.inf) for name, mask in there.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfEdges(LearnedMethod, abc.ABC):
    """A method that learns a ranking of edges."""

    def may_be_kept(self, model_config: ModelConfig) -> Masks:
        """Bool by kind of reader, edges that may be kept: by default all that there are.

        Args:
          model_config: the model's shape.
        """
        return jax.device_put(existing(model_config))

    def fixed(self, model_config: ModelConfig, size: Sizing) -> Fixed:
        """Which edges may be kept, and what share of all is to be, see `Learned.fixed`."""
        there, everything = self.may_be_kept(model_config), edge_count(existing(model_config))
        before, target = edge_count(there) / everything, size.edges / everything
        return Fixed(there, jnp.float32(before), jnp.float32(target))
