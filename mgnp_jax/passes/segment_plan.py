"""Which layers of a compacted model go together, so that one scan serves several of them.

Layers keep different numbers of nodes, and one scan needs one shape: consecutive layers are put
into a few segments, each as wide as its widest layer.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mgnp_jax.models.config import ModelConfig

LANE = 32
"""Hidden neurons are kept in multiples of this, which matrix products like."""

_Cover = tuple[float, int, tuple[int, ...]]
"""Cost, number and bounds of some segments."""


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


def heads_run(model_config: ModelConfig, heads: np.ndarray) -> np.ndarray:
    """How many heads of each layer must be run for the sake of those that are left.

    Args:
      model_config: the model's shape.
      heads: [L] heads left in each layer.

    Returns:
      [L].
    """
    if model_config.qk_norm != "all":
        return heads
    # A norm over all queries needs all heads, unless attention is closed as a whole.
    return np.where(heads > 0, model_config.heads, 0)


def plan(
    model_config: ModelConfig, heads: np.ndarray, hidden: np.ndarray, most_segments: int
) -> Plan:
    """Cuts the layers into the segments that cost least.

    Args:
      model_config: the model's shape.
      heads: [L] heads left in each layer.
      hidden: [L] hidden neurons left in each layer.
      most_segments: each costs the compilation of one more layer.
    """
    heads = heads_run(model_config, heads)
    costs = model_config.family.costs(model_config)
    per_head = costs.query + costs.key + (costs.value + costs.z_row) * model_config.head_width
    per_hidden = costs.hidden_in + model_config.width * costs.hidden_row
    lanes = np.minimum(-(-hidden // LANE) * LANE, model_config.mlp_width)
    layers = model_config.layers

    def segment(start: int, stop: int) -> float:
        widest = per_head * heads[start:stop].max() + per_hidden * lanes[start:stop].max()
        return float((stop - start) * widest)

    # best[stop]: cost, number and bounds of the cheapest cover of the layers up to stop; of
    # two that cost the same, the one with fewer segments.
    nothing: _Cover = (0.0, 0, (0,))
    unknown: _Cover = (np.inf, 0, ())
    best = [nothing] + [unknown] * layers
    for _ in range(most_segments):
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


def full_cost(model_config: ModelConfig) -> float:
    """Multiply-adds a token of the whole model's layers, in which heads may share keys.

    Args:
      model_config: the model's shape.
    """
    c, costs = model_config, model_config.family.costs(model_config)
    queries = c.heads * (costs.query + costs.z_row * c.head_width)
    shared = c.kv_heads * (costs.key + costs.value * c.head_width)
    mlp = c.mlp_width * (costs.hidden_in + c.width * costs.hidden_row)
    return float(c.layers * (queries + shared + mlp))
