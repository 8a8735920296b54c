"""The granularities: names, shapes, and the hierarchy among them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

GRANULARITIES = (
    "attention_blocks",
    "mlp_blocks",
    "attention_heads",
    "attention_neurons",
    "mlp_hidden",
    "mlp_output",
)
"""The six granularities that are trained together, coarse to fine."""

NEURONS = ("attention_neurons", "mlp_hidden", "mlp_output")
"""The finest three: what heads and MLPs consist of."""

EMBEDDING = "embedding"
"""The optional gate on the embedding."""


def mask_shapes(config: ModelConfig, *, embedding: bool = False) -> dict[str, tuple[int, ...]]:
    """Shape of each granularity's gates.

    Args:
      config: the model's shape.
      embedding: whether to count the embedding gate.

    Returns:
      Name → shape, the layer axis first.
    """
    c = config
    shapes: dict[str, tuple[int, ...]] = {
        "attention_blocks": (c.layers,),
        "mlp_blocks": (c.layers,),
        "attention_heads": (c.layers, c.heads),
        "attention_neurons": (c.layers, c.heads, c.head_width),
        "mlp_hidden": (c.layers, c.mlp_width),
        "mlp_output": (c.layers, c.width),
    }
    return shapes | ({EMBEDDING: ()} if embedding else {})


def gate_count(
    config: ModelConfig, *, embedding: bool = False, names: Sequence[str] = GRANULARITIES
) -> int:
    """Number of gates: 55,464 for GPT-2 small, 55,465 with the embedding's.

    Args:
      config: the model's shape.
      embedding: whether to count the embedding gate.
      names: granularities to count.
    """
    shapes = mask_shapes(config, embedding=embedding)
    return sum(math.prod(s) for n, s in shapes.items() if n in (*names, EMBEDDING))


def full_masks(config: ModelConfig, value: float = 1.0, *, embedding: bool = False) -> Masks:
    """Gates (or log-alpha) that all have one value.

    Args:
      config: the model's shape.
      value: of every gate.
      embedding: whether to include the embedding gate.

    Returns:
      Float32 arrays by granularity.
    """
    shapes = mask_shapes(config, embedding=embedding)
    # By numpy: each operation of JAX outside jit is a compilation of its own.
    return jax.device_put({n: np.full(s, value, np.float32) for n, s in shapes.items()})


def check_masks(config: ModelConfig, masks: Masks, what: str = "the masks") -> None:
    """Refuses masks that belong to a model of another shape.

    Args:
      config: the model's shape.
      masks: arrays by granularity; the embedding gate may be missing.
      what: what to call them in the message.

    Raises:
      MgnpError: naming the granularity and both shapes.
    """
    shapes = mask_shapes(config, embedding=EMBEDDING in masks)
    if set(shapes) != set(masks):
        raise MgnpError(
            f"{what} have granularities {sorted(masks)}; this model wants {sorted(shapes)}"
        )
    wrong = [
        f"{name}: {what} have {tuple(masks[name].shape)}, the model wants {shape}"
        for name, shape in shapes.items()
        if tuple(masks[name].shape) != shape
    ]
    if wrong:
        raise MgnpError(
            f"{what} do not fit this model ({config.family}, {config.layers} layers × "
            f"{config.heads} heads): {'; '.join(wrong)}. Load the model they were found on."
        )


@jax.jit
def apply_hierarchy(masks: Masks) -> Masks:
    """Closes every gate that can no longer change the network's function.

    Downwards: a closed block closes its heads, neurons, hidden and output gates; a closed
    head its neurons. Upwards: a head without neurons closes; an attention block without
    heads, an MLP block without hidden or without output neurons closes.

    Args:
      masks: bool arrays by granularity.

    Returns:
      Bool arrays by granularity; the same function of the prompts, applied twice the same.
    """
    heads = masks["attention_heads"] & masks["attention_blocks"][:, None]
    neurons = masks["attention_neurons"] & heads[..., None]
    heads = neurons.any(-1)
    mlp = masks["mlp_blocks"] & masks["mlp_hidden"].any(-1) & masks["mlp_output"].any(-1)
    consistent = {
        "attention_blocks": heads.any(-1),
        "mlp_blocks": mlp,
        "attention_heads": heads,
        "attention_neurons": neurons,
        "mlp_hidden": masks["mlp_hidden"] & mlp[:, None],
        "mlp_output": masks["mlp_output"] & mlp[:, None],
    }
    return {name: consistent.get(name, masks[name]) for name in masks}


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
