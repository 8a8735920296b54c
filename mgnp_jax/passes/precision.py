"""The precision that passes run in: exact float32 products, and bfloat16 weights kept as bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

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


def as_stored(params: Params, dtype: str) -> Params:
    """Weights in the precision they run in, as the compiler shall see them: bfloat16 as bits.

    Where bfloat16 is multiplied as float32 (CPUs), it would widen the weights of all layers
    at once, before the loop over them, and so make a second, larger model. Bits it leaves
    alone until a layer has them `as_numbers`.

    Args:
      params: the weights.
      dtype: `"float32"`, which leaves them as they are, or `"bfloat16"`.
    """

    def bits(leaf: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(leaf.astype(jnp.bfloat16), jnp.uint16)

    if dtype == "float32":
        return params
    assert dtype == "bfloat16", f"weights cannot be stored as {dtype}"
    # Compiled, as weights may lie on devices of other processes, too.
    return jax.tree.map(jax.jit(bits), params)


def as_numbers(params: Params) -> Params:
    """Weights as they act: those `as_stored` in bfloat16 are that, all others float32.

    A checkpoint's own 16 bits, as `load_model` may leave them, only save memory.

    Args:
      params: any of the model's.
    """

    def number(leaf: jax.Array) -> jax.Array:
        if leaf.dtype == jnp.uint16:
            return jax.lax.bitcast_convert_type(leaf, jnp.bfloat16)
        return leaf.astype(jnp.float32) if leaf.dtype in NARROW else leaf

    return jax.tree.map(number, params)


def on_numbers(function: Callable[[Params], Any], weights: Params) -> Any:
    """Applies a function of weights as numbers to weights as they are stored.

    A gradient makes numbers again of weights in 16 bits, and keeps products alone: it would else
    keep the numbers of all layers, which are a second model.

    Args:
      function: of the weights `as_numbers`, differentiated in what it closes over.
      weights: of a layer, as stored.
    """
    if not any(leaf.dtype in (jnp.uint16, *NARROW) for leaf in jax.tree.leaves(weights)):
        return function(weights)
    again = jax.checkpoint(
        lambda stored: function(as_numbers(stored)),
        policy=jax.checkpoint_policies.dots_saveable,
        # Layers run under a scan.
        prevent_cse=False,
    )
    return again(weights)
