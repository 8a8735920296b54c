"""The nodes with the largest weights, whatever the prompts: a circuit without a task."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.masks.selection import check_size
from mgnp_jax.methods.protocol import OnRecord
from mgnp_jax.methods.sizing import sizing
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.layer_steps import Layer
from mgnp_jax.passes.precision import exact
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class MagnitudeConfig:
    """Keeps the nodes that write with the largest weights."""

    name: ClassVar[str] = "magnitude"

    keep: float = 0.1
    """Share of the heads and of the MLP hidden neurons to keep; nearly that of the parameters."""
    like: Path | None = None
    """Instead: a saved circuit, of which as many nodes of every granularity are kept."""

    def __post_init__(self) -> None:
        """Refuses a size that cannot be."""
        check_size(self.keep, self.like)

    def find(self, key: jax.Array, model: Model, data: TaskData, on_record: OnRecord) -> Circuit:
        """Ranks nodes by their weights, see `Method.find`."""
        del key, data, on_record
        scores = magnitudes(model.config, model.params)
        size = sizing(model.config, self.keep, self.like)
        return Circuit(masks=size.chosen(scores), scores=scores, metadata={})


@functools.partial(jax.jit, static_argnums=0)
@exact
def magnitudes(model_config: ModelConfig, params: Params) -> Masks:
    """Norm of what each node writes with, over the mean of its kind.

    A neuron writes with its row of the output projection, an output neuron with its column; a
    head with all its rows, a block with all its matrix.

    Args:
      model_config: the model's shape.
      params: its weights.

    Returns:
      Float32 by granularity, 1 on average.
    """
    c = model_config

    def matrices(_: None, weights: Params) -> tuple[None, Any]:
        layer = Layer(model_config, weights)
        heads = jnp.eye(c.heads * c.head_width).reshape(-1, c.heads, c.head_width)
        return None, (
            layer.linear("attn_out", heads),
            layer.linear("mlp_out", jnp.eye(c.mlp_width)),
        )

    _, (attention, mlp) = jax.lax.scan(matrices, None, params["blocks"])
    attention, mlp = jnp.square(attention), jnp.square(mlp)
    neurons = attention.sum(-1).reshape(c.layers, c.heads, c.head_width)
    squares = {
        ATTENTION_BLOCKS: neurons.sum((1, 2)),
        ATTENTION_HEADS: neurons.sum(2),
        ATTENTION_NEURONS: neurons,
        MLP_BLOCKS: mlp.sum((1, 2)),
        MLP_HIDDEN: mlp.sum(2),
        MLP_OUTPUT: mlp.sum(1),
    }
    norms = {name: jnp.sqrt(leaf) for name, leaf in squares.items()}
    return {name: norm / norm.mean() for name, norm in norms.items()}
