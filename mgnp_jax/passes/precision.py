"""The precision that passes run in: exact float32 products, and bfloat16 weights kept as bits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Params

NARROW = (jnp.bfloat16, jnp.float16)
"""What weights may lie in memory as to save half of it."""

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


def in_precision(
    model_config: ModelConfig, params: Params, dtype: Literal["float32", "bfloat16"]
) -> tuple[ModelConfig, Params]:
    """A model as it is to run; in bfloat16, weights that lie in it already are not copied.

    Args:
      model_config: the model's shape.
      params: its weights.
      dtype: float32 leaves both as they are.
    """
    if dtype == "float32":
        return model_config, params
    stored = as_bits if jax.default_backend() == "cpu" else _halved
    return dataclasses.replace(model_config, numbers=dtype), stored(params)


def _halved(params: Params) -> Params:
    """Weights in bfloat16, for devices that multiply it as it is."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)


def as_bits(params: Params) -> Params:
    """Weights in bfloat16 as the compiler shall see them where it multiplies float32 (CPUs).

    It would widen the weights of all layers at once, before the loop over them, and so make a
    second, larger model. Bits it leaves alone until a layer has them `as_numbers`.

    Args:
      params: the weights.
    """

    def bits(leaf: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(leaf.astype(jnp.bfloat16), jnp.uint16)

    # Compiled, as weights may lie on devices of other processes, too.
    return jax.tree.map(jax.jit(bits), params)


def as_numbers(model_config: ModelConfig, params: Params) -> Params:
    """Weights as they act: those in 16 bits as `ModelConfig.numbers` says, all others as they are.

    Args:
      model_config: the model's shape.
      params: any of its weights.
    """

    def number(leaf: jax.Array) -> jax.Array:
        if leaf.dtype == jnp.uint16:
            leaf = jax.lax.bitcast_convert_type(leaf, jnp.bfloat16)
        return leaf.astype(model_config.numbers) if leaf.dtype in NARROW else leaf

    return jax.tree.map(number, params)


def on_numbers(
    model_config: ModelConfig, function: Callable[[Params], Any], weights: Params
) -> Any:
    """Applies a function of weights as numbers to weights as they are stored.

    A gradient makes numbers again of weights in 16 bits, and keeps products alone: it would else
    keep the numbers of all layers, which are a second model.

    Args:
      model_config: the model's shape.
      function: of the weights `as_numbers`, differentiated in what it closes over.
      weights: of a layer, as stored.
    """
    if not any(leaf.dtype in (jnp.uint16, *NARROW) for leaf in jax.tree.leaves(weights)):
        return function(weights)
    again = jax.checkpoint(
        lambda stored: function(as_numbers(model_config, stored)),
        policy=jax.checkpoint_policies.dots_saveable,
        # Layers run under a scan.
        prevent_cse=False,
    )
    return again(weights)
