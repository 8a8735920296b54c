"""What readers see of what was written, and how that is led back: products of matrices.

All of them go through arrays of W·K·D numbers, far larger than a CPU's caches, and XLA on CPUs is
many times slower on some forms than on others: on a product that sums over two axes (17 times), on
one long sum that is not cut up (2), on sums over the first axis (50). So they are cut up by tokens
there, a chunk at a time in the caches; an accelerator has them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CHUNK = 8
"""Most tokens of a chunk: with hundreds of writers and readers, some megabytes."""


def mixture(gates: jax.Array, written: jax.Array) -> jax.Array:
    """What each reader sees of what was written, by its gates.

    Args:
      gates: [R, W].
      written: [W, K, D].

    Returns:
      [R, K, D].
    """
    return (gates @ written.reshape(len(written), -1)).reshape(-1, *written.shape[1:])


def over_readers(back: jax.Array) -> jax.Array:
    """Sum over readers.

    Args:
      back: [R, K, D].

    Returns:
      [K, D].
    """
    ones = jnp.ones((1, len(back)), back.dtype)
    return (ones @ back.reshape(len(back), -1)).reshape(back.shape[1:])


def gate_products(back: jax.Array, written: jax.Array) -> jax.Array:
    """The gradient in gates of edges.

    Args:
      back: [R, K, D] gradient at the readers.
      written: [W, K, D] what the gates let through.

    Returns:
      [R, W].
    """

    def whole(back: jax.Array, written: jax.Array) -> jax.Array:
        # The larger first, which is 4 times faster on CPUs.
        return (written.reshape(len(written), -1) @ back.reshape(len(back), -1).T).T

    def chunks(back: jax.Array, written: jax.Array) -> jax.Array:
        def add(total: jax.Array, at: Callable[[jax.Array], jax.Array]) -> jax.Array:
            return total + whole(at(back), at(written)).astype(total.dtype)

        # Many small sums: in bfloat16 they would lose digits that one long sum keeps.
        fine = jnp.promote_types(written.dtype, jnp.float32)
        none = jnp.zeros((len(back), len(written)), fine)
        return _by_chunks(back.shape[1], add, none).astype(written.dtype)

    return jax.lax.platform_dependent(back, written, cpu=chunks, default=whole)


def led_back(down: jax.Array, gates: jax.Array, back: jax.Array) -> jax.Array:
    """Gradients at what was written, with what comes back from more readers.

    Args:
      down: [W, K, D] so far.
      gates: [R, W].
      back: [R, K, D] gradient at the readers.

    Returns:
      [W, K, D].
    """

    def whole(down: jax.Array, gates: jax.Array, back: jax.Array) -> jax.Array:
        return down + mixture(gates.T, back)

    def chunks(down: jax.Array, gates: jax.Array, back: jax.Array) -> jax.Array:
        def add(down: jax.Array, at: Any) -> jax.Array:
            return at.set(down, whole(at(down), gates, at(back)))

        return _by_chunks(back.shape[1], add, down)

    return jax.lax.platform_dependent(down, gates, back, cpu=chunks, default=whole)


class _Chunk:
    """Some tokens of arrays [·, K, D]."""

    def __init__(self, start: jax.Array, size: int) -> None:
        self.start, self.size = start, size

    def __call__(self, whole: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(whole, self.start, self.size, 1)

    def set(self, whole: jax.Array, chunk: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, chunk, self.start, 1)


def _by_chunks(tokens: int, add: Callable[[jax.Array, Any], jax.Array], first: jax.Array) -> Any:
    """Goes through all tokens, as many at a time as divide their number."""
    size = next(size for size in range(CHUNK, 0, -1) if tokens % size == 0)
    return jax.lax.fori_loop(
        0, tokens // size, lambda n, total: add(total, _Chunk(n * size, size)), first
    )
