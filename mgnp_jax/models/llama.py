"""Llama: rotary positions, RMSNorm, grouped queries, a gated MLP, no biases.

Reference: the architecture of Hugging Face's `LlamaForCausalLM`, whose logits the tests
reproduce; SmolLM2 is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig, check_keys, need
from mgnp_jax.models.family import Family, ParameterCosts, Source
from mgnp_jax.types import MgnpError, Params

_ACTIVATIONS = {"silu": nn.silu}


def _dense(features: int) -> nn.Dense:
    return nn.Dense(features, use_bias=False)


def _norm(config: ModelConfig) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=config.norm_eps)


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Turns each pair (i, i + E/2) of a head by its position times theta^(-2i/E).

    Args:
      x: [K, H, E] queries or keys.
      positions: [K] int.
      theta: base of the angles.

    Returns:
      [K, H, E]. Reference: arXiv 2104.09864, in the half-split layout of Llama.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[:, None] * frequency[None]
    cos, sin = (f(angle).astype(x.dtype)[:, None] for f in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class Block(nn.Module):
    """One Llama layer, one method a site."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the sublayers under Hugging Face's names."""
        c = self.config
        self.input_layernorm = _norm(c)
        self.q_proj = _dense(c.heads * c.head_width)
        self.k_proj = _dense(c.kv_heads * c.head_width)
        self.v_proj = _dense(c.kv_heads * c.head_width)
        self.o_proj = _dense(c.width)
        self.post_attention_layernorm = _norm(c)
        self.gate_proj = _dense(c.mlp_width)
        self.up_proj = _dense(c.mlp_width)
        self.down_proj = _dense(c.width)

    def attn_qkv(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        """[K,D] residual, [K] positions → [K,H,E] and two of [K,KV,E]."""
        theta, width = self.config.rope_theta, self.config.head_width
        x = self.input_layernorm(x)
        q, k, v = (
            project(x).reshape(len(x), -1, width)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, positions, theta), rotate(k, positions, theta), v

    def attn_out(self, z: jax.Array) -> jax.Array:
        """[K,H,E] → [K,D]."""
        return self.o_proj(z.reshape(len(z), -1))

    def mlp_hidden(self, x: jax.Array) -> jax.Array:
        """[K,D] → [K,F], the activated gate times the up projection."""
        x = self.post_attention_layernorm(x)
        return _ACTIVATIONS[self.config.activation](self.gate_proj(x)) * self.up_proj(x)

    def mlp_out(self, hidden: jax.Array) -> jax.Array:
        """[K,F] → [K,D]."""
        return self.down_proj(hidden)

    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Every method once, which initialises their parameters; not the layer itself."""
        q, _, _ = self.attn_qkv(x, positions)
        return self.attn_out(q) + self.mlp_out(self.mlp_hidden(x))


class Ends(nn.Module):
    """Token embedding, final norm, unembedding."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the sublayers under Hugging Face's names."""
        c = self.config
        init = nn.initializers.normal(0.02)
        self.embed_tokens = nn.Embed(c.vocab_size, c.width, embedding_init=init)
        self.norm = _norm(c)
        if not c.tied:
            self.lm_head = _dense(c.vocab_size)

    def embed(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """[K] tokens → [K,D]; their positions act in `attn_qkv`."""
        del positions
        return self.embed_tokens(tokens)

    def unembed(self, x: jax.Array) -> jax.Array:
        """[...,D] → [...,V]."""
        x = self.norm(x)
        return self.embed_tokens.attend(x) if self.config.tied else self.lm_head(x)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Both ends, which initialises their parameters."""
        return self.unembed(self.embed(tokens, positions))


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Llama config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, unknown, or asks for what is not implemented.
    """
    check_keys(
        raw,
        honoured="""vocab_size max_position_embeddings hidden_size num_hidden_layers
        num_attention_heads num_key_value_heads head_dim intermediate_size hidden_act
        rms_norm_eps rope_theta rope_parameters tie_word_embeddings""".split(),
        # Dropout acts in training only; pretraining_tp splits a product, same values.
        inert=("attention_dropout", "pretraining_tp", "is_llama_config"),
        required={
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "rope_scaling": (None,),
            "rope_interleaved": (False,),
            "pruned_heads": (None, {}),
            "quantization_config": (None,),
            "sliding_window": (None,),
        },
    )
    rope = raw.get("rope_parameters") or {}
    extra = set(rope) - {"rope_theta", "rope_type"}
    if rope.get("rope_type", "default") != "default" or extra:
        raise MgnpError(
            f"config.json has 'rope_parameters' = {dict(rope)!r}; only rope_type 'default' "
            "with a rope_theta is supported. Use a checkpoint without scaled positions."
        )
    if raw.get("hidden_act", "silu") not in _ACTIVATIONS:
        raise MgnpError(
            f"config.json has 'hidden_act' = {raw['hidden_act']!r}; supported: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    width, heads = need(raw, "hidden_size"), need(raw, "num_attention_heads")
    return ModelConfig(
        family="llama",
        vocab_size=need(raw, "vocab_size"),
        context=need(raw, "max_position_embeddings"),
        layers=need(raw, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_width=raw.get("head_dim") or width // heads,
        mlp_width=need(raw, "intermediate_size"),
        activation=raw.get("hidden_act", "silu"),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        tied=raw.get("tie_word_embeddings", False),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def sources(config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint; Llama stores projections as [out, in]."""
    table = {
        "ends/embed_tokens/embedding": Source("model.embed_tokens.weight"),
        "ends/norm/scale": Source("model.norm.weight"),
    }
    if not config.tied:
        table["ends/lm_head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "model.layers.{layer}."
    for name in ("input_layernorm", "post_attention_layernorm"):
        table[f"blocks/{name}/scale"] = Source(f"{layer}{name}.weight")
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        table[f"blocks/{name}/kernel"] = Source(f"{layer}self_attn.{name}.weight", True)
    for name in ("gate_proj", "up_proj", "down_proj"):
        table[f"blocks/{name}/kernel"] = Source(f"{layer}mlp.{name}.weight", True)
    return table


def costs(config: ModelConfig) -> ParameterCosts:
    """Parameters per kind of node; no biases, a norm is one vector."""
    d, e = config.width, config.head_width
    head = 0 if config.tied else config.vocab_size * d
    return ParameterCosts(
        query=d * e,
        key=d * e,
        value=d,
        z_row=d,
        attn_block=d,
        hidden_in=2 * d,
        hidden_row=1,
        output=0,
        mlp_block=d,
        outside=config.vocab_size * d + d + head,
    )


def narrow(config: ModelConfig, weights: Params, heads: jax.Array, hidden: jax.Array) -> Params:
    """One layer's weights with some heads and hidden neurons only, see `Family`."""
    c = config
    readers = heads // (c.heads // c.kv_heads)

    def columns(name: str, which: jax.Array) -> Params:
        kernel = weights[name]["kernel"].reshape(c.width, -1, c.head_width)[:, which]
        return {"kernel": kernel.reshape(c.width, -1)}

    rows = weights["o_proj"]["kernel"].reshape(c.heads, c.head_width, c.width)[heads]
    return {
        **weights,
        "q_proj": columns("q_proj", heads),
        "k_proj": columns("k_proj", readers),
        "v_proj": columns("v_proj", readers),
        "o_proj": {"kernel": rows.reshape(-1, c.width)},
        "gate_proj": {"kernel": weights["gate_proj"]["kernel"][:, hidden]},
        "up_proj": {"kernel": weights["up_proj"]["kernel"][:, hidden]},
        "down_proj": {"kernel": weights["down_proj"]["kernel"][hidden]},
    }


LLAMA = Family(
    block=Block,
    ends=Ends,
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Precomputed angles that old checkpoints carry.
    ignored=("rotary_emb.inv_freq",),
    costs=costs,
    narrow=narrow,
    # SmolLM2 was trained with its documents opened by this token and its tokenizer adds
    # nothing: IOI accuracy is 0.75 without it and 1.00 with it.
    prefix_token="<|endoftext|>",
)
