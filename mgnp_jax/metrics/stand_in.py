"""What pruned nodes are given: the corrupted run's values, or constants instead of them.

A constant for a head's outputs or for MLP neurons makes what the block writes a constant, too:
it is the affine output map of it, so that gates of two granularities still multiply.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.metrics.extent import extent
from mgnp_jax.metrics.streams import chunk_rows, run_streams
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.layers import call
from mgnp_jax.types import Batch, MgnpError, Params, StandIn


def stand_in(
    config: ModelConfig, params: Params, batch: Batch, ablation: str, size: int
) -> StandIn | None:
    """Constants that stand in for pruned nodes.

    Args:
      config: the model's shape.
      params: its weights.
      batch: training prompts, over whose corrupted runs means are taken.
      ablation: `"interchange"`, `"zero"` or `"mean"`.
      size: prompts a piece.

    Returns:
      Arrays by site; None for interchange, whose values differ from prompt to prompt.

    Raises:
      MgnpError: for another name.
    """
    if ablation == "interchange":
        return None
    if ablation == "zero":
        return jax.device_get(_zeros(config, params))
    if ablation == "mean":
        return _means(config, params, batch, size)
    raise MgnpError(f"ablation must be interchange, zero or mean, got {ablation!r}")


@functools.partial(jax.jit, static_argnums=0)
def _zeros(config: ModelConfig, params: Params) -> StandIn:
    z = jnp.zeros((config.layers, config.heads, config.head_width), jnp.float32)
    hidden = jnp.zeros((config.layers, config.mlp_width), jnp.float32)

    def written(_: None, weights: Params) -> tuple[None, tuple[jax.Array, jax.Array]]:
        out = call(config, weights, "attn_out", z[:1])
        return None, (out[0], call(config, weights, "mlp_out", hidden[:1])[0])

    _, (out, mlp) = jax.lax.scan(written, None, params["blocks"])
    return {
        "embedding": jnp.zeros(config.width, jnp.float32),
        "attn_z": z,
        "attn_out": out,
        "mlp_hidden": hidden,
        "mlp_out": mlp,
    }


def _means(config: ModelConfig, params: Params, batch: Batch, size: int) -> StandIn:
    where = extent(batch, share_prefix=False)
    chunks = list(chunk_rows(len(batch), size))
    sizes = where.sizes(rows for rows, _ in chunks)
    sums: StandIn = {}
    for rows, real in chunks:
        run = run_streams(config, params, batch.take(rows), sizes, share_prefix=False).corrupted
        tokens = int(where.lengths[rows[:real]].sum())
        (values,) = run.values
        host = jax.device_get({"embedding": run.embedding[None], **vars(values)})
        for name, leaf in host.items():
            sums[name] = sums.get(name, 0) + leaf[:, :tokens].sum(1, dtype=np.float64)
    total = int(where.lengths.sum())
    means = {name: (leaf / total).astype(np.float32) for name, leaf in sums.items()}
    return means | {"embedding": means["embedding"][0]}
