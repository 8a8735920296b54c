"""Where in a prompt nodes act: first-order effects of heads and MLPs token by token."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence.chunks import Split
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS
from mgnp_jax.metrics.scores import score
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns, plain_runs
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.token_gates import logits_by_token
from mgnp_jax.types import Batch, Masks, Params


@functools.partial(jax.jit, static_argnums=0)
@exact
def _by_token(
    model_config: ModelConfig, params: Params, masks: Masks, runs: CachedRuns
) -> tuple[jax.Array, jax.Array]:
    """What scores change by if a node leaves at a token: [L, K, H] and [L, K]."""
    c, tokens = model_config, len(runs.clean)

    def total(heads: jax.Array, mlps: jax.Array) -> jax.Array:
        logits = logits_by_token(c, params, masks, runs, heads, mlps)
        return score(runs.targets.scores["score"], logits).sum()

    ones = jnp.ones((c.layers, tokens, c.heads), jnp.float32)
    heads, mlps = jax.grad(total, argnums=(0, 1))(ones, ones[..., 0])
    return -heads, -mlps


def effects_by_position(model: Model, masks: Masks, examples: Split) -> dict[str, np.ndarray]:
    """First-order effects on the score of leaving out a head or an MLP at one token.

    Args:
      model: the model.
      masks: bool arrays by granularity, of the circuit.
      examples: P prompts.

    Returns:
      Heads [P, L, H, T] and MLP blocks [P, L, T], float16; NaN for nodes that are not kept and
      beyond a prompt's end. Before a pair's first difference they are 0.
    """
    c, real = model.config, np.asarray(examples.batch.attention_mask, bool)
    gates = {name: np.asarray(mask, np.float32) for name, mask in masks.items()}
    found: dict[str, np.ndarray] = {
        name: leaf.astype(np.float32) for name, leaf in nowhere(c, examples.batch).items()
    }
    chunks, sizes = examples.chunks(gradient=True)
    for chunk in chunks:
        runs = plain_runs(
            *(c, model.params, chunk.batch, sizes), ablation_values=examples.constants
        )
        by_token = jax.device_get(_by_token(c, model.params, gates, runs))
        own = np.asarray(runs.layout.prompts)
        used = np.asarray(runs.layout.used) & (chunk.weights > 0)[own]
        rows, places = chunk.rows[own[used]], runs.layout.positions[used]
        for name, leaf in zip((ATTENTION_HEADS, MLP_BLOCKS), by_token, strict=True):
            found[name][chunk.rows[: chunk.real]] = 0
            # Tokens before layers: [P, T, L, …].
            at = np.moveaxis(found[name], -1, 1)
            at[rows, places] = np.moveaxis(leaf[:, used], 1, 0)
    for name, leaf in found.items():
        kept = np.asarray(masks[name], bool)[None, ..., None]
        there = real.reshape(len(real), *(1,) * (leaf.ndim - 2), -1)
        found[name] = np.where(kept & there, leaf, np.nan).astype(np.float16)
    return found


def nowhere(model_config: ModelConfig, examples: Batch) -> dict[str, np.ndarray]:
    """What `effects_by_position` returns where it is not defined: NaN.

    Args:
      model_config: the model's shape.
      examples: P prompts.
    """
    c, (prompts, length) = model_config, np.shape(examples.clean)
    shapes = {ATTENTION_HEADS: (c.layers, c.heads), MLP_BLOCKS: (c.layers,)}
    return {
        name: np.full((prompts, *shape, length), np.nan, np.float16)
        for name, shape in shapes.items()
    }
