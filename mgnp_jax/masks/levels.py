"""The levels that a circuit may be at, nodes or edges: ONE table of what is asked of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from mgnp_jax.masks import edge_graph, edges, granularities, hierarchy
from mgnp_jax.masks.controls import random_edges, shuffled
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError


class Level(NamedTuple):
    """What circuits of one level have in common.

    Attributes:
      name: of what is kept or not.
      axes: of the arrays that masks must have, by name.
      large_by: what of `circuit_sizes` says how large a circuit is.
      shapes: (model's config, masks) → shape of each array.
      full: (model's config, value, masks) → gates that all have one value, of the same kinds.
      consistent: masks → without what cannot act; the same function of the prompts.
      complement: (model's config, masks) → what is left out.
      random: (key, model's config, masks) → a random circuit of the size.
      nodes: (model's config, masks) → the nodes that are used, by granularity.
      edges: (model's config, masks) → the edges that are used, by kind of reader.
      closed_because: why `consistent` closes what it closes.
      check_acting: (masks, what to call them, level of the warning) says what is open in vain.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    large_by: str
    shapes: Callable[[ModelConfig, Masks], dict[str, tuple[int, ...]]]
    full: Callable[[ModelConfig, float, Masks], Masks]
    consistent: Callable[[Masks], Masks]
    complement: Callable[[ModelConfig, Masks], Masks]
    random: Callable[[jax.Array, ModelConfig, Masks], Masks]
    nodes: Callable[[ModelConfig, Masks], Masks]
    edges: Callable[[ModelConfig | edges.Graph, Masks], Masks]
    closed_because: str
    check_acting: Callable[[Masks, str, int], None]


def _has_embedding(masks: Masks) -> bool:
    return granularities.EMBEDDING in masks


def _left_out(model_config: ModelConfig, masks: Masks) -> Masks:
    there = edges.existing(model_config)
    return jax.device_put({name: e & ~np.asarray(masks[name]) for name, e in there.items()})


NODE = Level(
    name="node",
    axes={name: kind.axes for name, kind in granularities.TABLE.items()},
    large_by="parameters",
    shapes=lambda c, masks: granularities.mask_shapes(c, embedding=_has_embedding(masks)),
    full=lambda c, value, masks: granularities.full_masks(
        c, value, embedding=_has_embedding(masks)
    ),
    consistent=hierarchy.apply_hierarchy,
    complement=lambda c, masks: hierarchy.complement(masks),
    random=lambda key, c, masks: shuffled(key, masks),
    nodes=lambda c, masks: masks,
    edges=edge_graph.edges_between,
    closed_because="Closed because what contains them, or all that they contain, is closed",
    check_acting=lambda masks, what, level: hierarchy.check_acting(masks, what, level + 1),
)

EDGE = Level(
    name="edge",
    axes={name: (*axes, "writers") for name, axes in edges.READERS.items()},
    large_by="edges",
    shapes=lambda c, masks: edges.edge_shapes(c),
    full=lambda c, value, masks: edges.full_edges(c, value),
    consistent=edge_graph.without_dangling,
    complement=_left_out,
    random=random_edges,
    nodes=edge_graph.nodes_within,
    edges=lambda c, masks: masks,
    closed_because="Left out because they come from a node that reads nothing, or lead to one that "
    "nothing reads",
    # Edges that lead nowhere are a matter of course.
    check_acting=lambda masks, what, level: None,
)

LEVELS: dict[str, Level] = {level.name: level for level in (NODE, EDGE)}
"""By name."""


def level_of(masks: Masks) -> Level:
    """Which level masks are of.

    Args:
      masks: arrays by granularity, or by kind of reader.
    """
    return EDGE if set(masks) & set(EDGE.axes) else NODE


def check_masks(model_config: ModelConfig, masks: Masks, what: str = "the masks") -> None:
    """Refuses masks that belong to a model of another shape.

    Args:
      model_config: the model's shape.
      masks: arrays by granularity, the embedding gate may be missing; or by kind of reader.
      what: what to call them in the message.

    Raises:
      MgnpError: naming the kind and both shapes, or edges that the model does not have.
    """
    level = level_of(masks)
    shapes = level.shapes(model_config, masks)
    if set(shapes) != set(masks):
        raise MgnpError(
            f"{what} have granularities {sorted(masks)}; this model wants {sorted(shapes)}"
        )
    wrong = [
        f"{name}: {what} have {tuple(masks[name].shape)}, the model wants {shape}"
        for name, shape in shapes.items()
        if tuple(masks[name].shape) != shape
    ]
    if not wrong and level is EDGE:
        there = edges.existing(model_config)
        wrong = [
            f"{name}: {what} have edges from nodes that write later"
            for name, exists in there.items()
            if np.asarray(masks[name], bool)[~exists].any()
        ]
    if wrong:
        raise MgnpError(
            f"{what} do not fit this model ({model_config.family.name}, {model_config.layers} "
            f"layers × {model_config.heads} heads): {'; '.join(wrong)}. Load the model they were "
            "found on."
        )
