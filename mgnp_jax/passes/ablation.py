"""What pruned nodes are given: the corrupted run's values, or constants instead of them.

A constant for a head's outputs or for MLP neurons makes what the block writes a constant, too:
it is the output map of it, so that gates of two granularities still multiply.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.mesh import on_host
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.caching import chunk_rows
from mgnp_jax.passes.layer_steps import Layer
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.types import AblationValues, Batch, MgnpError, Params


def ablation_values(
    model_config: ModelConfig, params: Params, batch: Batch, ablation: str, size: int
) -> AblationValues | None:
    """Constants that are given to pruned nodes.

    Args:
      model_config: the model's shape.
      params: its weights.
      batch: training prompts, over whose corrupted runs means are taken.
      ablation: `"interchange"`, `"zero"` or `"mean"`.
      size: prompts a chunk.

    Returns:
      Arrays by site; None for interchange, whose values differ from prompt to prompt.

    Raises:
      MgnpError: for another name.
    """
    if ablation == "interchange":
        return None
    if ablation == "zero":
        return on_host(_written(model_config, params, _zeros(model_config)))
    if ablation == "mean":
        means = _means(model_config, params, batch, size)
        return on_host(_written(model_config, params, means))
    raise MgnpError(f"ablation must be interchange, zero or mean, got {ablation!r}")


def _zeros(model_config: ModelConfig) -> AblationValues:
    c = model_config
    return {
        "embedding": np.zeros(c.width, np.float32),
        "attn_z": np.zeros((c.layers, c.heads, c.head_width), np.float32),
        "mlp_hidden": np.zeros((c.layers, c.mlp_width), np.float32),
    }


def _means(model_config: ModelConfig, params: Params, batch: Batch, size: int) -> AblationValues:
    """Means over all tokens of the corrupted runs."""
    spans = spans_of(batch, share_prefix=False)
    chunks = list(chunk_rows(len(batch), size))
    sizes = spans.sizes(rows for rows, _ in chunks)
    sums: AblationValues = {}
    for rows, real in chunks:
        runs = plain_runs(model_config, params, batch.take(rows), sizes, share_prefix=False)
        tokens = int(spans.lengths[rows[:real]].sum())
        (values,) = runs.corrupted.values
        found = {
            "embedding": runs.corrupted.embedding[None],
            "attn_z": values.attn_z,
            "mlp_hidden": values.mlp_hidden,
        }
        for name, leaf in on_host(found).items():
            sums[name] = sums.get(name, 0) + leaf[:, :tokens].sum(1, dtype=np.float64)
    total = int(spans.lengths.sum())
    means = {name: (leaf / total).astype(np.float32) for name, leaf in sums.items()}
    return means | {"embedding": means["embedding"][0]}


@functools.partial(jax.jit, static_argnums=0)
@exact
def _written(
    model_config: ModelConfig, params: Params, constants: AblationValues
) -> AblationValues:
    """Constants of heads and neurons, and what blocks write where all of theirs are pruned."""

    def layer_of(_: None, inputs: tuple[Params, jax.Array, jax.Array]) -> tuple[None, Any]:
        weights, z, hidden = inputs
        layer = Layer(model_config, weights)
        projected = layer.step("attn_out", z[None]), layer.step("mlp_out", hidden[None])
        out = layer.step("attn_write", projected[0]), layer.step("mlp_write", projected[1])
        return None, tuple(leaf[0] for leaf in (*out, *projected))

    inputs = (params["blocks"], constants["attn_z"], constants["mlp_hidden"])
    _, (out, mlp, projected, mlp_projected) = jax.lax.scan(layer_of, None, inputs)
    found = constants | {"attn_out": out, "mlp_out": mlp}
    if model_config.norm_after:
        found |= {"attn_projected": projected, "mlp_projected": mlp_projected}
    return found
