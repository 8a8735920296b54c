"""Rotary positions: by how much each pair of a head's numbers is turned, and turning them.

References: arXiv 2104.09864 for the angles; Llama 3.1's model code for `llama3`; arXiv 2309.00071
for `yarn`. All computed as transformers computes them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How angles differ from those of plain rotary positions, for prompts longer than trained on.

    Attributes:
      kind: `linear` divides all angles by the factor; `llama3` those of the slow pairs, with a
        smooth passage; `yarn` too, by another rule, and scales what is turned.
      factor: by which angles are divided.
      original: longest prompt that the model was first trained on, in tokens.
      slow: pairs that turn fewer times than this over `original` are divided.
      fast: pairs that turn more often than this are left alone.
      amplitude: what is turned is multiplied by it.
      whole_pairs: of yarn, whether the passage begins and ends at a whole pair.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original: int = 0
    slow: float = 1.0
    fast: float = 4.0
    amplitude: float = 1.0
    whole_pairs: bool = True


def frequencies(theta: float, width: int, scaling: RopeScaling | None) -> jax.Array:
    """Radians by which each pair is turned from one position to the next.

    Args:
      theta: base of the angles.
      width: R, how many of a head's numbers are turned.
      scaling: None for plain rotary positions.

    Returns:
      [R / 2] float32, pair i of numbers i and i + R/2.
    """
    half = width // 2
    plain = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    kept = _kept_llama3(plain, scaling) if scaling.kind == "llama3" else None
    if kept is None:
        kept = jnp.asarray(_kept_yarn(theta, width, scaling))
    return kept * plain + (1 - kept) * plain / scaling.factor


def _kept_llama3(plain: jax.Array, scaling: RopeScaling) -> jax.Array:
    """[R / 2] in [0, 1]: how far each pair is left alone, by its turns over the first context."""
    turns = scaling.original * plain / (2 * math.pi)
    return jnp.clip((turns - scaling.slow) / (scaling.fast - scaling.slow), 0, 1)


def _kept_yarn(theta: float, width: int, scaling: RopeScaling) -> np.ndarray:
    """The same of yarn, where the passage is linear in the index of the pair."""

    def pair(turns: float) -> float:
        """Index of the pair that turns so often over the first context."""
        ratio = math.log(scaling.original / (turns * 2 * math.pi))
        return width * ratio / (2 * math.log(theta))

    first, last = pair(scaling.fast), pair(scaling.slow)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    # As transformers does where the passage has no length.
    last = last + 0.001 if first == last else last
    ramp = (np.arange(width // 2, dtype=np.float32) - first) / (last - first)
    return (1 - np.clip(ramp, 0, 1)).astype(np.float32)


def turn(x: jax.Array, angles: jax.Array, amplitude: float | jax.Array = 1.0) -> jax.Array:
    """Turns pairs (i, i + R/2) of each head's first R numbers; the others stay as they are.

    Args:
      x: [K, H, E] queries or keys.
      angles: [K, R / 2] radians.
      amplitude: what is turned is multiplied by it.

    Returns:
      [K, H, E]. Reference: arXiv 2104.09864, in the half-split layout of Llama.
    """
    half = angles.shape[-1]
    cos, sin = (f(angles).astype(x.dtype)[:, None] for f in (jnp.cos, jnp.sin))
    if isinstance(amplitude, jax.Array):
        # So that it does not widen what it scales, as no plain number does.
        cos, sin = (part * amplitude.astype(x.dtype) for part in (cos, sin))
    elif amplitude != 1:
        cos, sin = cos * amplitude, sin * amplitude
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate([*turned, rest] if rest.shape[-1] else turned, -1)
