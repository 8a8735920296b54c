"""Where prompts enter the residual stream, and where logits are read from it."""

from __future__ import annotations

from typing import Any

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.precision import as_numbers, exact
from mgnp_jax.types import Params


def _apply(model_config: ModelConfig, params: Params, method: str, *inputs: jax.Array) -> Any:
    # Tied to what it acts on, so that it is not widened before it is needed (see `as_bits`).
    weights, first = jax.lax.optimization_barrier((params["embeddings"], inputs[0]))
    module = model_config.family.embeddings(model_config)
    return module.apply(
        {"params": as_numbers(model_config, weights)}, first, *inputs[1:], method=method
    )


@exact
def embed(
    model_config: ModelConfig, params: Params, tokens: jax.Array, positions: jax.Array
) -> jax.Array:
    """Token (and position) embeddings.

    Args:
      model_config: the model's shape.
      params: its weights.
      tokens: [K] int ids.
      positions: [K] int places in their prompts.

    Returns:
      [K, D].
    """
    return _apply(model_config, params, "embed", tokens, positions)


@exact
def unembed(model_config: ModelConfig, params: Params, residual: jax.Array) -> jax.Array:
    """Final norm and unembedding.

    Args:
      model_config: the model's shape.
      params: its weights.
      residual: [..., D] residual stream after the last layer.

    Returns:
      [..., V] logits.
    """
    return _apply(model_config, params, "unembed", residual)


@exact
def norm_frozen(
    model_config: ModelConfig, params: Params, part: jax.Array, whole: jax.Array
) -> jax.Array:
    """What a part of the residual stream has of the final norm, its scale as the whole has it.

    Linear in the part: those of all parts add up to the norm of the whole, its bias aside.

    Args:
      model_config: the model's shape.
      params: its weights.
      part: [..., D].
      whole: [..., D] residual stream after the last layer; shape as the part's.

    Returns:
      [..., D], for `read_normed`.
    """
    return _apply(model_config, params, "norm_frozen", part, whole)


@exact
def read_normed(model_config: ModelConfig, params: Params, normed: jax.Array) -> jax.Array:
    """The unembedding without the final norm; linear.

    Args:
      model_config: the model's shape.
      params: its weights.
      normed: [..., D].

    Returns:
      [..., V] logits.
    """
    return _apply(model_config, params, "read", normed)
