"""A model's layers without the nodes that are closed for good.

What a closed node writes is the corrupted run's value whatever the prompt's masked stream
does, and that is part of the cached sum the site writes anyway; so its weights need not be
multiplied by anything. Heads and hidden neurons are left out one by one; attention neurons and
outputs only with all of their head or MLP.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    EMBEDDING,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.masks.hierarchy import carriers
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.layer_steps import stacked_layers
from mgnp_jax.passes.node_values import CorruptedRun, SiteValues
from mgnp_jax.passes.segment_plan import Plan, plan
from mgnp_jax.types import Masks, Params


@struct.dataclass
class Segment:
    """Consecutive layers, each with the same number of nodes.

    Attributes:
      start: first layer.
      stop: layer after the last.
      weights: of these layers, narrowed to the nodes below.
      heads: [l, H'] int32 which heads are left; filled up where a layer has fewer.
      has_head: [l, H'] bool, False where filled up.
      hidden: [l, F'] int32 which hidden neurons are left.
      has_hidden: [l, F'] bool, False where filled up.
    """

    start: int = struct.field(pytree_node=False)
    stop: int = struct.field(pytree_node=False)
    weights: Params
    heads: jax.Array
    has_head: jax.Array
    hidden: jax.Array
    has_hidden: jax.Array

    def masks(self, masks: Masks) -> Masks:
        """Gates (or log-alpha) of the nodes that are left.

        Args:
          masks: [L, …] by granularity; the embedding's is left out.
        """
        part = {k: v[self.start : self.stop] for k, v in masks.items() if k != EMBEDDING}
        heads, neurons = part[ATTENTION_HEADS], part[ATTENTION_NEURONS]
        part[ATTENTION_HEADS] = jnp.take_along_axis(heads, self.heads, 1)
        part[ATTENTION_NEURONS] = jnp.take_along_axis(neurons, self.heads[..., None], 1)
        part[MLP_HIDDEN] = jnp.take_along_axis(part[MLP_HIDDEN], self.hidden, 1)
        return part

    def closed_where_filled(self, gates: SiteValues) -> SiteValues:
        """Closes the gates of nodes that only fill a layer up.

        Args:
          gates: of the segment's layers, [l, …] or [l, B, …].
        """

        def only(gate: jax.Array, has: jax.Array, rank: int) -> jax.Array:
            has = has.reshape(has.shape + (1,) * (rank - 1))
            has = has if gate.ndim == 1 + rank else has[:, None]
            return gate * has.astype(gate.dtype)

        return gates.replace(  # type: ignore[attr-defined]
            attn_z=only(gates.attn_z, self.has_head, 2),
            mlp_hidden=only(gates.mlp_hidden, self.has_hidden, 1),
        )


@struct.dataclass
class Compaction:
    """What is left of the model.

    Attributes:
      segments: its layers.
      open: [L, …] bool by granularity; False where closed for good.
    """

    segments: tuple[Segment, ...]
    open: Masks

    def masks(self, masks: Masks) -> list[Masks]:
        """Gates (or log-alpha) of what is left, for each segment.

        Args:
          masks: [L, …] by granularity.
        """
        parts = [segment.masks(masks) for segment in self.segments]
        if EMBEDDING in masks:
            parts[0][EMBEDDING] = masks[EMBEDDING]
        return parts


def what_stays(acting: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which nodes stay in the computation for the sake of some neurons.

    Args:
      acting: [L, …] bool by granularity, the neurons that still act.

    Returns:
      [L, …] bool by granularity: what carries them, and all attention neurons and outputs there.
    """
    left = {name: np.asarray(mask) for name, mask in carriers(acting).items()}
    whole = {ATTENTION_NEURONS: ATTENTION_HEADS, MLP_OUTPUT: MLP_BLOCKS}
    for name, parent in whole.items():
        left[name] = np.broadcast_to(left[parent][..., None], left[name].shape)
    return left


def plan_for(model_config: ModelConfig, left: dict[str, np.ndarray], most_segments: int) -> Plan:
    """The cheapest segments for what is left.

    Args:
      model_config: the model's shape.
      left: [L, …] bool by granularity.
      most_segments: at most so many.
    """
    heads, hidden = left[ATTENTION_HEADS].sum(1), left[MLP_HIDDEN].sum(1)
    return plan(model_config, heads, hidden, most_segments)


def compacted(
    model_config: ModelConfig, params: Params, chosen: Plan, left: dict[str, np.ndarray]
) -> Compaction:
    """The model without what is closed for good.

    Args:
      model_config: its shape.
      params: its weights.
      chosen: how layers are grouped, as `plan_for` says.
      left: [L, …] bool by granularity.
    """
    segments = narrowed(model_config, params, chosen, left[ATTENTION_HEADS], left[MLP_HIDDEN])
    return Compaction(segments=segments, open=jax.tree.map(jnp.asarray, left))


def narrowed(
    model_config: ModelConfig, params: Params, chosen: Plan, heads: np.ndarray, hidden: np.ndarray
) -> tuple[Segment, ...]:
    """Copies the weights of the nodes that are left.

    Args:
      model_config: the model's shape.
      params: its weights.
      chosen: how layers are grouped.
      heads: [L, H] bool, True where a head is left.
      hidden: [L, F] bool.
    """
    whole = stacked_layers(model_config, params)
    segments = []
    for a, b, h, f in zip(chosen.bounds, chosen.bounds[1:], chosen.heads, chosen.hidden):
        which_heads, has_head = _first(heads[a:b], h)
        which_hidden, has_hidden = _first(hidden[a:b], f)
        segments.append(
            Segment(
                start=a,
                stop=b,
                weights=_cut(model_config, whole, a, which_heads, which_hidden),
                heads=which_heads,
                has_head=has_head,
                hidden=which_hidden,
                has_hidden=has_hidden,
            )
        )
    return tuple(segments)


@functools.partial(jax.jit, static_argnums=0)
def _cut(
    model_config: ModelConfig, blocks: Params, start: int, heads: jax.Array, hidden: jax.Array
) -> Params:
    """Weights of l layers from one on, with some heads [l, H'] and hidden neurons [l, F']."""
    narrow = model_config.family.narrow

    def layers(leaf: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, len(heads))

    cut = jax.vmap(lambda w, i, j: narrow(model_config, w, i, j))
    return cut(jax.tree.map(layers, blocks), heads, hidden)


def _first(left: np.ndarray, count: int) -> tuple[jax.Array, jax.Array]:
    """[l, N] bool → places [l, count] of the True ones, then of others; and which are True."""
    order = np.argsort(~left, axis=1, kind="stable")[:, :count].astype(np.int32)
    return jnp.asarray(order), jnp.asarray(np.take_along_axis(left, order, 1))


def narrow_values(
    model_config: ModelConfig, segments: Sequence[Segment], corrupted: CorruptedRun
) -> CorruptedRun:
    """The corrupted run's values of the nodes that are left.

    Args:
      model_config: the model's shape.
      segments: the layers.
      corrupted: of the whole model, one segment.
    """
    ((values,), (prefix,)) = corrupted.values, corrupted.prefix
    # What lies in host memory stays there.
    module: Any = np if isinstance(corrupted.embedding, np.ndarray) else jnp
    take, array = module.take_along_axis, module.asarray
    kept, before = [], []
    for s in segments:
        heads, hidden = array(s.heads), array(s.hidden)
        part, earlier = jax.tree.map(lambda leaf, s=s: leaf[s.start : s.stop], (values, prefix))
        kept.append(
            part.replace(
                attn_z=take(part.attn_z, heads[:, None, :, None], 2),
                mlp_hidden=take(part.mlp_hidden, hidden[:, None], 2),
            )
        )
        readers = key_value_heads(model_config, heads)[:, None, None, :, None]
        before.append(tuple(take(leaf, readers, 3) for leaf in earlier))
    return CorruptedRun(embedding=corrupted.embedding, values=tuple(kept), prefix=tuple(before))


def key_value_heads(model_config: ModelConfig, heads: Any) -> Any:
    """Which key-value heads query heads read, once for each.

    Args:
      model_config: the model's shape.
      heads: [..., H'] int.

    Returns:
      [..., H'] int.
    """
    return heads // (model_config.heads // model_config.kv_heads)
