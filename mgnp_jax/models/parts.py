"""What transformer blocks are made of: norms, rotary positions, attention and MLP projections.

Each is written once, with the differences between families as fields of `ModelConfig`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.norms import norm, norm_frozen
from mgnp_jax.models.rotary import turn

ACTIVATIONS = {
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
}
"""Non-linearities by the names that config.json has for them."""


class Attention(nn.Module):
    """The projections of attention; what tokens read from each other is `passes.packing`."""

    model_config: ModelConfig

    def setup(self) -> None:
        """Declares the projections."""
        c = self.model_config
        queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
        if c.fused_qkv:
            self.qkv = nn.Dense(3 * queries, use_bias=c.qkv_bias)
        else:
            self.q = nn.Dense(queries, use_bias=c.qkv_bias)
            self.k = nn.Dense(keys, use_bias=c.qkv_bias)
            self.v = nn.Dense(keys, use_bias=c.qkv_bias)
        self.o = nn.Dense(c.width, use_bias=c.attention_bias)
        if c.qk_norm is not None:
            self.q_norm = norm(c)
            self.k_norm = norm(c)

    def read(
        self, x: jax.Array, angles: jax.Array | None, amplitude: float | jax.Array = 1.0
    ) -> tuple[jax.Array, ...]:
        """[K,D], angles [K,R/2] and amplitude → queries [K,H,E], keys and values [K,KV,E]."""
        c = self.model_config
        if c.fused_qkv:
            parts = jnp.split(self.qkv(x), 3, axis=-1)
        else:
            parts = [project(x) for project in (self.q, self.k, self.v)]
        if c.qk_norm == "all":
            parts[:2] = self.q_norm(parts[0]), self.k_norm(parts[1])
        q, k, v = (part.reshape(len(x), -1, c.head_width) for part in parts)
        if c.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return *self._turned(q, k, angles, amplitude), v

    def _turned(
        self, q: jax.Array, k: jax.Array, angles: jax.Array | None, amplitude: float | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if angles is None:
            return q, k
        return turn(q, angles, amplitude), turn(k, angles, amplitude)

    def read_each(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        angles: jax.Array | None,
        amplitude: float | jax.Array = 1.0,
    ) -> tuple[jax.Array, ...]:
        """`read` of a residual stream of each head's own: [H,K,D], and [KV,K,D] twice.

        A norm over all heads' queries together acts on those that all would have of that stream.
        """
        c = self.model_config
        names = ("qkv",) if c.fused_qkv else ("q", "k", "v")
        found = [getattr(self, name).variables["params"] for name in names]
        if c.fused_qkv:
            split = {n: jnp.split(leaf, 3, axis=-1) for n, leaf in found[0].items()}
            found = [{n: leaves[i] for n, leaves in split.items()} for i in range(3)]

        def project(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
            kernel = weights["kernel"].reshape(c.width, len(x), c.head_width)
            read = jnp.einsum("hkd,dhe->hke", x, kernel.astype(x.dtype))
            if "bias" in weights:
                read += weights["bias"].reshape(len(x), 1, c.head_width)
            return read.swapaxes(0, 1)

        def project_normed(weights: Mapping[str, jax.Array], norm: nn.Module, x: jax.Array) -> Any:
            every = jnp.einsum("hkd,df->hkf", x, weights["kernel"].astype(x.dtype))
            if "bias" in weights:
                every += weights["bias"].reshape(1, 1, -1)
            every = norm(every).reshape(*x.shape[:2], len(x), c.head_width)
            own = jnp.arange(len(x))
            return every[own, :, own].swapaxes(0, 1)

        parts = list(zip(found, (q, k, v), strict=True))
        if c.qk_norm == "all":
            norms = self.q_norm, self.k_norm
            q, k = (project_normed(of, norm, x) for (of, x), norm in zip(parts, norms))
            v = project(*parts[-1])
        else:
            q, k, v = (project(*part) for part in parts)
        if c.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return *self._turned(q, k, angles, amplitude), v

    def write(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → [K,D]."""
        return self.o(z.reshape(len(z), -1))

    def write_each(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → what each head adds to the projection [H,K,D]; no bias."""
        kernel = self.o.variables["params"]["kernel"].reshape(*z.shape[1:], -1)
        return jnp.einsum("khe,hed->hkd", z, kernel.astype(z.dtype))


class Mlp(nn.Module):
    """The two halves of an MLP, gated or plain."""

    model_config: ModelConfig

    def setup(self) -> None:
        """Declares the projections."""
        c = self.model_config
        if c.gated_mlp:
            self.gate = nn.Dense(c.mlp_width, use_bias=c.mlp_bias)
        self.up = nn.Dense(c.mlp_width, use_bias=c.mlp_bias)
        self.down = nn.Dense(c.width, use_bias=c.mlp_bias)

    def read(self, x: jax.Array) -> jax.Array:
        """[K,D] → neurons [K,F]: activation(up), or activation(gate) · up."""
        activate = ACTIVATIONS[self.model_config.activation]
        if self.model_config.gated_mlp:
            return activate(self.gate(x)) * self.up(x)
        return activate(self.up(x))

    def write(self, hidden: jax.Array) -> jax.Array:
        """Neurons [K,F] → [K,D]."""
        return self.down(hidden)


class Embeddings(nn.Module):
    """Token and position embeddings, final norm, unembedding."""

    model_config: ModelConfig

    def setup(self) -> None:
        """Declares them."""
        c = self.model_config
        init = nn.initializers.normal(0.02)
        self.token = nn.Embed(c.vocab_size, c.width, embedding_init=init)
        if c.rope_theta is None:
            self.position = nn.Embed(c.context, c.width, embedding_init=init)
        self.norm = norm(c)
        if not c.tied:
            self.head = nn.Dense(c.vocab_size, use_bias=c.head_bias)

    def embed(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """[K] tokens and their positions → [K,D]."""
        embedded = self.token(tokens)
        if self.model_config.embedding_scale != 1:
            embedded *= self.model_config.embedding_scale
        if self.model_config.rope_theta is None:
            embedded += self.position(positions)
        return embedded

    def unembed(self, x: jax.Array) -> jax.Array:
        """[...,D] → [...,V]."""
        logits = self._logits(self.norm(x))
        cap = self.model_config.logit_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def read(self, normed: jax.Array) -> jax.Array:
        """What the final norm gives [...,D] → logits [...,V] before a cap; linear, bias aside."""
        logits = self._logits(normed)
        if self.model_config.tied or not self.model_config.head_bias:
            return logits
        return logits - self._logits(jnp.zeros_like(normed))

    def _logits(self, normed: jax.Array) -> jax.Array:
        return self.token.attend(normed) if self.model_config.tied else self.head(normed)

    def norm_frozen(self, part: jax.Array, whole: jax.Array) -> jax.Array:
        """What a part [...,D] of a residual stream [...,D] has of the final norm, bias aside.

        The norm's scale is that of the whole stream, so this is linear in the part.
        """
        return norm_frozen(self.model_config, self.norm.variables["params"]["scale"], part, whole)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Both ways, which initialises their parameters."""
        return self.unembed(self.embed(tokens, positions))
