"""The layers that a masked pass runs, segment by segment: shapes, weights, gates, other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.compaction import Segment
from mgnp_jax.passes.layer_steps import stacked_layers
from mgnp_jax.passes.layers import Hooks, masked_layer
from mgnp_jax.passes.node_values import CorruptedRun, SiteValues, site_gates
from mgnp_jax.passes.packing import Layout
from mgnp_jax.types import Masks, Params


class Stack(NamedTuple):
    """Consecutive layers of one shape.

    Attributes:
      shape: of these layers.
      inputs: their weights, gates, values of the corrupted run and prefixes, stacked [l, …].
    """

    shape: ModelConfig
    inputs: Any

    def layer(
        self, layout: Layout, x: jax.Array, inputs: Any, hooks: Hooks | None = None
    ) -> jax.Array:
        """One layer of the masked stream.

        Args:
          layout: K tokens.
          x: [K, D] residual stream before it.
          inputs: of the layer.
          hooks: on the gated differences; None for none.

        Returns:
          [K, D] residual stream after it.
        """
        weights, gate, other, prefix = inputs
        prefix = prefix if layout.prefix.shape[1] > 0 else None
        return masked_layer(self.shape, layout, x, weights, gate, other, prefix, hooks or Hooks())


def stacks(
    model_config: ModelConfig,
    params: Params,
    masks: Sequence[Masks],
    corrupted: CorruptedRun,
    segments: Sequence[Segment] | None,
) -> Iterator[Stack]:
    """What a masked pass runs.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity, for each segment.
      corrupted: the corrupted run's values, segment by segment.
      segments: the layers without nodes closed for good; None for the whole model.

    Yields:
      One stack for each segment.
    """
    parts = (
        [stacked_layers(model_config, params)]
        if segments is None
        else [s.weights for s in segments]
    )
    for i, weights in enumerate(parts):
        gates, shape = site_gates(masks[i]), model_config
        if segments is not None:
            gates = segments[i].closed_where_filled(gates)
            shape = narrowed_shape(model_config, gates)
        yield Stack(shape, (weights, gates, corrupted.values[i], corrupted.prefix[i]))


def narrowed_shape(model_config: ModelConfig, gates: SiteValues) -> ModelConfig:
    """The shape of layers of which nodes are left, in which each head has its key and value.

    Args:
      model_config: the whole model's.
      gates: of what is left.
    """
    # A layer of which nothing is left is not run, but has a shape.
    heads, hidden = max(gates.attn_z.shape[-2], 1), max(gates.mlp_hidden.shape[-1], 1)
    return dataclasses.replace(model_config, heads=heads, kv_heads=heads, mlp_width=hidden)
