"""Both ends of the model: embedding and unembedding, and full float32 products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named
from mgnp_jax.models.layers import opened
from mgnp_jax.types import Params

F = TypeVar("F", bound=Callable[..., Any])


def exact(function: F) -> F:
    """Traces a function with full float32 products, on GPUs too.

    Their default rounds the factors to ten bits: logits move by more than the parity with
    the published models allows, and a circuit would score differently on another device.
    """

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return traced  # pyright: ignore[reportReturnType]


@exact
def embed(config: ModelConfig, params: Params, tokens: jax.Array, positions: jax.Array) -> Any:
    """Token (and position) embeddings.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [K] int ids.
      positions: [K] int places in their prompts.

    Returns:
      [K, D].
    """
    ends = family_named(config.family).ends(config)
    # Tied to what it acts on, so that it is not widened before it is needed (see `sealed`).
    weights, tokens = jax.lax.optimization_barrier((params["ends"], tokens))
    return ends.apply({"params": opened(weights)}, tokens, positions, method="embed")


@exact
def unembed(config: ModelConfig, params: Params, residual: jax.Array) -> Any:
    """Final norm and unembedding.

    Args:
      config: the model's shape.
      params: its weights.
      residual: [..., D] residual stream after the last layer.

    Returns:
      [..., V] logits.
    """
    ends = family_named(config.family).ends(config)
    weights, residual = jax.lax.optimization_barrier((params["ends"], residual))
    return ends.apply({"params": opened(weights)}, residual, method="unembed")
