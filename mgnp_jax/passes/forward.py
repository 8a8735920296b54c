"""The public passes, on padded batches: the base model, and the model with masks."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_forward import capture, lockstep_residual
from mgnp_jax.passes.packing import Layout, whole_grid
from mgnp_jax.types import Masks, Params


def _grid(model_config: ModelConfig, tokens: jax.Array, attention_mask: jax.Array | None) -> Layout:
    """The layout of a padded batch, checked."""
    chex.assert_rank(tokens, 2)
    if tokens.shape[1] > model_config.context:
        raise ValueError(
            f"prompts of {tokens.shape[1]} tokens are longer than the model's context "
            f"of {model_config.context}; shorten them"
        )
    mask = jnp.ones(tokens.shape, bool) if attention_mask is None else attention_mask
    chex.assert_equal_shape([tokens, mask])
    return whole_grid(mask)


@functools.partial(jax.jit, static_argnums=0)
def forward(
    model_config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The base model, as published.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [B, T] int ids, right-padded.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits; rows at padded positions mean nothing.

    Raises:
      ValueError: if the prompts are longer than the context.
    """
    layout = _grid(model_config, tokens, attention_mask)
    residual = capture(model_config, params, tokens.reshape(-1), layout).residual
    return unembed(model_config, params, residual.reshape(*tokens.shape, -1))


@functools.partial(jax.jit, static_argnums=0)
def two_stream_forward(
    model_config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The masked model on clean prompts, pruned nodes taking the corrupted run's values.

    Args:
      model_config: the model's shape.
      params: its weights.
      masks: gates by granularity, in [0, 1].
      clean: [B, T] int ids, right-padded.
      corrupted: [B, T] int ids, row by row as long as `clean`.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits. Masks of one give `forward` on the clean prompts; masks of zero,
      the embedding's too, `forward` on the corrupted ones.
    """
    chex.assert_equal_shape([clean, corrupted])
    layout = _grid(model_config, clean, attention_mask)
    residual = lockstep_residual(
        model_config, params, masks, clean.reshape(-1), corrupted.reshape(-1), layout
    )
    return unembed(model_config, params, residual.reshape(*clean.shape, -1))
