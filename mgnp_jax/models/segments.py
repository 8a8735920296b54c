"""A model's layers without the nodes that are closed for good.

What a closed node writes is the corrupted run's value whatever the prompt's masked stream
does, and that is part of the cached sum the site writes anyway; so its weights need not be
multiplied by anything. Layers keep different numbers of nodes, and one scan needs one shape:
consecutive layers are put into a few segments, each as wide as its widest layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named, parameter_costs
from mgnp_jax.models.nodes import Corrupted, SiteValues
from mgnp_jax.types import Masks, Params

MOST_SEGMENTS = 4
"""Each costs the compilation of one more layer."""

LANE = 32
"""Hidden neurons are kept in multiples of this, which matrix products like."""


_Cover = tuple[float, int, tuple[int, ...]]
"""Cost, number and bounds of some segments."""


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
        part = {k: v[self.start : self.stop] for k, v in masks.items() if k != "embedding"}
        heads, neurons = part["attention_heads"], part["attention_neurons"]
        part["attention_heads"] = jnp.take_along_axis(heads, self.heads, 1)
        part["attention_neurons"] = jnp.take_along_axis(neurons, self.heads[..., None], 1)
        part["mlp_hidden"] = jnp.take_along_axis(part["mlp_hidden"], self.hidden, 1)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which layers go together, and what that costs.

    Attributes:
      bounds: first layer of each segment, then L.
      heads: H' of each segment.
      hidden: F' of each segment.
      cost: multiply-adds a token, of all segments.
    """

    bounds: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    cost: float


def plan(config: ModelConfig, heads: np.ndarray, hidden: np.ndarray) -> Plan:
    """Cuts the layers into the segments that cost least.

    Args:
      config: the model's shape.
      heads: [L] heads left in each layer.
      hidden: [L] hidden neurons left in each layer.
    """
    costs = parameter_costs(config)
    per_head = costs.query + costs.key + (costs.value + costs.z_row) * config.head_width
    per_hidden = costs.hidden_in + config.width * costs.hidden_row
    lanes = np.minimum(-(-hidden // LANE) * LANE, config.mlp_width)
    layers = config.layers

    def segment(start: int, stop: int) -> float:
        widest = per_head * heads[start:stop].max() + per_hidden * lanes[start:stop].max()
        return float((stop - start) * widest)

    # best[stop]: cost, number and bounds of the cheapest cover of the layers up to stop; of
    # two that cost the same, the one with fewer segments.
    nothing: _Cover = (0.0, 0, (0,))
    unknown: _Cover = (np.inf, 0, ())
    best = [nothing] + [unknown] * layers
    for _ in range(MOST_SEGMENTS):
        extended = [
            [
                (cost + segment(start, stop), count + 1, (*bounds, stop))
                for start, (cost, count, bounds) in enumerate(best[:stop])
                if bounds
            ]
            for stop in range(1, layers + 1)
        ]
        best = [nothing, *(min(old, *new) for old, new in zip(best[1:], extended))]
    total, _, bounds = best[layers]
    pairs = list(zip(bounds, bounds[1:]))
    return Plan(
        bounds=bounds,
        heads=tuple(int(heads[a:b].max()) for a, b in pairs),
        hidden=tuple(int(lanes[a:b].max()) for a, b in pairs),
        cost=total,
    )


def narrowed(
    config: ModelConfig, params: Params, chosen: Plan, heads: np.ndarray, hidden: np.ndarray
) -> tuple[Segment, ...]:
    """Copies the weights of the nodes that are left.

    Args:
      config: the model's shape.
      params: its weights.
      chosen: how layers are grouped.
      heads: [L, H] bool, True where a head is left.
      hidden: [L, F] bool.
    """
    narrow = family_named(config.family).narrow
    segments = []
    for a, b, h, f in zip(chosen.bounds, chosen.bounds[1:], chosen.heads, chosen.hidden):
        which_heads, has_head = _first(heads[a:b], h)
        which_hidden, has_hidden = _first(hidden[a:b], f)
        layers = jax.tree.map(lambda leaf, a=a, b=b: leaf[a:b], params["blocks"])
        cut = jax.vmap(lambda w, i, j: narrow(config, w, i, j))
        segments.append(
            Segment(
                start=a,
                stop=b,
                weights=cut(layers, which_heads, which_hidden),
                heads=which_heads,
                has_head=has_head,
                hidden=which_hidden,
                has_hidden=has_hidden,
            )
        )
    return tuple(segments)


def _first(left: np.ndarray, count: int) -> tuple[jax.Array, jax.Array]:
    """[l, N] bool → places [l, count] of the True ones, then of others; and which are True."""
    order = np.argsort(~left, axis=1, kind="stable")[:, :count].astype(np.int32)
    return jnp.asarray(order), jnp.asarray(np.take_along_axis(left, order, 1))


def narrow_values(
    config: ModelConfig, segments: Sequence[Segment], corrupted: Corrupted
) -> Corrupted:
    """The corrupted run's values of the nodes that are left.

    Args:
      config: the model's shape.
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
        readers = key_value_heads(config, heads)[:, None, None, :, None]
        before.append(tuple(take(leaf, readers, 3) for leaf in earlier))
    return Corrupted(embedding=corrupted.embedding, values=tuple(kept), prefix=tuple(before))


def key_value_heads(config: ModelConfig, heads: Any) -> Any:
    """Which key-value heads query heads read, once for each.

    Args:
      config: the model's shape.
      heads: [..., H'] int.

    Returns:
      [..., H'] int.
    """
    return heads // (config.heads // config.kv_heads)
