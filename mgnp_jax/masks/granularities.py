"""The granularities: ONE table of their names, shapes and hierarchy. Everything else asks it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

ATTENTION_BLOCKS = "attention_blocks"
MLP_BLOCKS = "mlp_blocks"
ATTENTION_HEADS = "attention_heads"
ATTENTION_NEURONS = "attention_neurons"
MLP_HIDDEN = "mlp_hidden"
MLP_OUTPUT = "mlp_output"

EMBEDDING = "embedding"
"""The optional gate on the embedding, which stands outside the hierarchy."""


class Granularity(NamedTuple):
    """One kind of node.

    Attributes:
      axes: fields of `ModelConfig` that are its shape; those of its parent, and one more.
      parent: the kind of node that contains it; None for whole blocks.
      label: as a reader calls it.
      short: in a line of the terminal.
    """

    axes: tuple[str, ...]
    parent: str | None
    label: str
    short: str


TABLE: dict[str, Granularity] = {
    ATTENTION_BLOCKS: Granularity(("layers",), None, "Attention blocks", "attn"),
    MLP_BLOCKS: Granularity(("layers",), None, "MLP blocks", "mlp"),
    ATTENTION_HEADS: Granularity(("layers", "heads"), ATTENTION_BLOCKS, "Attention heads", "heads"),
    ATTENTION_NEURONS: Granularity(
        ("layers", "heads", "head_width"), ATTENTION_HEADS, "Attention neurons", "neurons"
    ),
    MLP_HIDDEN: Granularity(("layers", "mlp_width"), MLP_BLOCKS, "MLP hidden neurons", "hidden"),
    MLP_OUTPUT: Granularity(("layers", "width"), MLP_BLOCKS, "MLP output neurons", "output"),
}
"""The six granularities that are trained together; a parent stands before its children."""

GRANULARITIES = tuple(TABLE)
"""Their names, coarse to fine."""

NEURONS = tuple(name for name in TABLE if name not in {g.parent for g in TABLE.values()})
"""The finest, which contain nothing: what heads and MLPs consist of."""


def mask_shapes(
    model_config: ModelConfig, *, embedding: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shape of each granularity's gates.

    Args:
      model_config: the model's shape.
      embedding: whether to count the embedding gate.

    Returns:
      Name → shape, the layer axis first.
    """
    shapes: dict[str, tuple[int, ...]] = {
        name: tuple(getattr(model_config, axis) for axis in kind.axes)
        for name, kind in TABLE.items()
    }
    return shapes | ({EMBEDDING: ()} if embedding else {})


def gate_count(
    model_config: ModelConfig, *, embedding: bool = False, names: Sequence[str] = GRANULARITIES
) -> int:
    """Number of gates: 55,464 for GPT-2 small, 55,465 with the embedding's.

    Args:
      model_config: the model's shape.
      embedding: whether to count the embedding gate.
      names: granularities to count.
    """
    shapes = mask_shapes(model_config, embedding=embedding)
    return sum(math.prod(s) for n, s in shapes.items() if n in (*names, EMBEDDING))


def by_name(model_config: ModelConfig, names: Sequence[str], row: Any) -> dict[str, Any]:
    """One row of nodes as arrays by granularity; views of it if it is NumPy's.

    Args:
      model_config: the model's shape.
      names: granularities, one after another.
      row: [nodes] of all of them.
    """
    shapes, found, start = mask_shapes(model_config), {}, 0
    for name in names:
        size = math.prod(shapes[name])
        found[name] = row[start : start + size].reshape(shapes[name])
        start += size
    return found


def full_masks(model_config: ModelConfig, value: float = 1.0, *, embedding: bool = False) -> Masks:
    """Gates (or log-alpha) that all have one value.

    Args:
      model_config: the model's shape.
      value: of every gate.
      embedding: whether to include the embedding gate.

    Returns:
      Float32 arrays by granularity.
    """
    shapes = mask_shapes(model_config, embedding=embedding)
    # By numpy: each operation of JAX outside jit is a compilation of its own.
    return jax.device_put({n: np.full(s, value, np.float32) for n, s in shapes.items()})


def as_bool(masks: Masks) -> dict[str, jax.Array]:
    """Binary gates of any dtype as bool; raises if one is neither 0 nor 1.

    Args:
      masks: arrays by granularity.

    Returns:
      Bool arrays by granularity.

    Raises:
      MgnpError: naming the granularity that is not binary.
    """
    host = jax.device_get(masks)
    for name, mask in host.items():
        if not np.isin(mask, (0, 1)).all():
            raise MgnpError(
                f"{name} has values other than 0 and 1; figures about a circuit are measured "
                "on binary masks: binarise first (mgnp_jax.binarise)"
            )
    return jax.device_put({name: np.asarray(mask, bool) for name, mask in host.items()})
