"""The norms of transformer blocks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig


class OffsetRMSNorm(nn.Module):
    """RMSNorm whose weights are what is added to a scale of one."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] → [..., D]."""
        weights = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        fine = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        square = jnp.square(fine).mean(-1, keepdims=True)
        # Added in the finer type: next to one, small weights would be lost in a coarser.
        scale = (1 + weights.astype(fine.dtype)).reshape((1,) * (x.ndim - 1) + (-1,))
        return (fine * jax.lax.rsqrt(square + self.epsilon) * scale).astype(x.dtype)


def norm(model_config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm | OffsetRMSNorm:
    """The norm that this model has everywhere."""
    if model_config.norm_offset:
        return OffsetRMSNorm(epsilon=model_config.norm_eps)
    if model_config.norm == "rms":
        return nn.RMSNorm(epsilon=model_config.norm_eps)
    # The fast variance (E[x²] - E[x]²) loses digits where the residual is large.
    return nn.LayerNorm(epsilon=model_config.norm_eps, use_fast_variance=False)


def norm_frozen(
    model_config: ModelConfig, scale: jax.Array, part: jax.Array, whole: jax.Array
) -> jax.Array:
    """What a part has of the norm of a whole, the norm's scale as the whole has it, bias aside.

    Linear in the part: those of all parts add up to the norm of the whole, its bias aside.

    Args:
      model_config: the model's shape.
      scale: [D] the norm's weights.
      part: [..., D].
      whole: [..., D] what the norm is of; as many axes as the part.

    Returns:
      [..., D].
    """
    if model_config.norm == "layer":
        part, whole = (x - x.mean(-1, keepdims=True) for x in (part, whole))
    square = jnp.square(whole).mean(-1, keepdims=True)
    if model_config.norm_offset:
        scale = 1 + scale
    scale = scale.reshape((1,) * (part.ndim - 1) + scale.shape)
    return part * jax.lax.rsqrt(square + model_config.norm_eps) * scale
