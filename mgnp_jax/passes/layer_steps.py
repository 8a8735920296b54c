"""The steps of one layer of any family, with its weights: what all passes are written in."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.rotary import frequencies
from mgnp_jax.passes.packed_attention import attend, attention_pattern
from mgnp_jax.passes.packing import Layout
from mgnp_jax.passes.precision import on_numbers
from mgnp_jax.types import Params

Prefix = tuple[jax.Array, jax.Array] | None
"""Keys and values [B, P, KV, E] of the positions before the packed ones; None if P is 0."""


CONSTANTS = "constants"
"""Where a layer's constants stand beside its weights, in models whose layers differ in them."""


def stacked_layers(model_config: ModelConfig, params: Params) -> Params:
    """What a scan over layers reads of them: weights, and constants in which layers differ.

    Args:
      model_config: the model's shape.
      params: its weights.

    Returns:
      Leaves [L, …].
    """
    c, constants = model_config, {}
    if c.windows:
        # What sees everything before it sees no more than a prompt can have.
        constants["window"] = jnp.array([w or c.context for w in c.windows], jnp.int32)
    if c.rope_theta is not None and (c.unrotated or c.local_rope_theta is not None):
        everywhere = frequencies(c.rope_theta, c.turned, c.rope_scaling)
        nearby = None
        if c.local_rope_theta is not None:
            nearby = frequencies(c.local_rope_theta, c.turned, None)
        angles, amplitudes = [], []
        for layer in range(c.layers):
            own, amplitude = everywhere, _amplitude(c)
            if layer in c.unrotated:
                own, amplitude = jnp.zeros_like(everywhere), 1.0
            elif nearby is not None and c.windows and c.windows[layer]:
                own, amplitude = nearby, 1.0
            angles.append(own)
            amplitudes.append(amplitude)
        constants["frequencies"] = jnp.stack(angles)
        if _amplitude(c) != 1:
            constants["amplitude"] = jnp.array(amplitudes, jnp.float32)
    return {**params["blocks"], CONSTANTS: constants} if constants else params["blocks"]


def _amplitude(model_config: ModelConfig) -> float:
    """By which scaled positions multiply what they turn."""
    scaling = model_config.rope_scaling
    return 1.0 if scaling is None else scaling.amplitude


@dataclasses.dataclass(frozen=True)
class Layer:
    """The steps of one layer with its weights: what the passes call.

    Attributes:
      model_config: its shape.
      weights: of this layer, as stored, and its constants, see `stacked_layers`.
    """

    model_config: ModelConfig
    weights: Params

    def step(self, method: str, *inputs: jax.Array | float | None) -> Any:
        """Applies a step of the family's block.

        Args:
          method: name of it, see `models.family.BlockSteps`.
          inputs: its arguments.
        """
        block = self.model_config.family.block(self.model_config)
        weights = {name: leaf for name, leaf in self.weights.items() if name != CONSTANTS}

        def applied(own: Params) -> Any:
            return block.apply({"params": own}, *inputs, method=method)

        return on_numbers(self.model_config, applied, weights)

    def qkv(self, layout: Layout, x: jax.Array) -> tuple[jax.Array, ...]:
        """Queries [K,H,E], keys and values [K,KV,E] of a residual stream [K,D].

        Args:
          layout: K tokens.
          x: the residual stream.
        """
        return self.step("attn_qkv", x, *self._rotary(layout))

    def qkv_each(self, layout: Layout, *normed: jax.Array) -> tuple[jax.Array, ...]:
        """The same where each head reads a stream of its own, all of them normed.

        Args:
          layout: K tokens.
          normed: for queries [H,K,D], for keys and values [KV,K,D].
        """
        return self.step("attn_project_each", *normed, *self._rotary(layout))

    def attend(
        self, layout: Layout, q: jax.Array, k: jax.Array, v: jax.Array, prefix: Prefix = None
    ) -> jax.Array:
        """Head outputs [K,H,E]: what tokens read from each other.

        Args:
          layout: K tokens.
          q: [K,H,E] queries.
          k: [K,KV,E] keys.
          v: [K,KV,E] values.
          prefix: of the positions before.
        """
        return attend(layout, q, k, v, prefix, **self._attention)

    def pattern(self, layout: Layout, q: jax.Array, k: jax.Array) -> jax.Array:
        """[B,H,T,T]: how much each token of whole prompts reads from each.

        Args:
          layout: K tokens, no prefix.
          q: [K,H,E] queries.
          k: [K,KV,E] keys.
        """
        return attention_pattern(layout, q, k, **self._attention)

    @property
    def _attention(self) -> Any:
        c, window = self.model_config, self._constants.get("window")
        return {"window": window, "scalar": c.query_scalar, "cap": c.attention_cap}

    @property
    def _constants(self) -> Any:
        return self.weights.get(CONSTANTS, {})

    def _rotary(self, layout: Layout) -> tuple[jax.Array | None, float | jax.Array]:
        """Angles [K, R / 2] of rotary positions, and amplitude []; None where they are learned."""
        c = self.model_config
        if c.rope_theta is None:
            return None, 1.0
        each = self._constants.get("frequencies")
        each = frequencies(c.rope_theta, c.turned, c.rope_scaling) if each is None else each
        amplitude = self._constants.get("amplitude", _amplitude(c))
        return layout.positions.astype(jnp.float32)[:, None] * each[None], amplitude

    def linear(self, method: str, difference: jax.Array) -> jax.Array:
        """An affine step's linear part: what the difference of two inputs writes.

        Args:
          method: `attn_out` or `mlp_out`.
          difference: of its inputs.
        """

        def unbiased(path: Any, leaf: jax.Array) -> jax.Array:
            return jnp.zeros_like(leaf) if path[-1].key == "bias" else leaf

        weights = jax.tree.map_with_path(unbiased, self.weights)
        return Layer(self.model_config, weights).step(method, difference)
