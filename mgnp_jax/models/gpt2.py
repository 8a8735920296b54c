"""GPT-2: learnt positions, LayerNorm before each half, one fused q-k-v projection.

Reference: the architecture of Hugging Face's `GPT2LMHeadModel`, whose logits the tests
reproduce.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig, check_keys, need
from mgnp_jax.models.family import Family, ParameterCosts, Source
from mgnp_jax.types import MgnpError, Params

_ACTIVATIONS = {
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
}


def _norm(config: ModelConfig) -> nn.LayerNorm:
    # The fast variance (E[x²] - E[x]²) loses digits where GPT-2's residual is large.
    return nn.LayerNorm(epsilon=config.norm_eps, use_fast_variance=False)


class Block(nn.Module):
    """One GPT-2 layer, one method a site."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the sublayers under Hugging Face's names."""
        c = self.config
        self.ln_1 = _norm(c)
        self.c_attn = nn.Dense(3 * c.heads * c.head_width)
        self.attn_proj = nn.Dense(c.width)
        self.ln_2 = _norm(c)
        self.c_fc = nn.Dense(c.mlp_width)
        self.mlp_proj = nn.Dense(c.width)

    def attn_qkv(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        """[K,D] residual, [K] positions (which act in `embed` alone) → three of [K,H,E]."""
        del positions
        c = self.config
        parts = jnp.split(self.c_attn(self.ln_1(x)), 3, axis=-1)
        return tuple(part.reshape(len(x), c.heads, c.head_width) for part in parts)

    def attn_out(self, z: jax.Array) -> jax.Array:
        """[K,H,E] → [K,D]."""
        return self.attn_proj(z.reshape(len(z), -1))

    def mlp_hidden(self, x: jax.Array) -> jax.Array:
        """[K,D] → [K,F]."""
        return _ACTIVATIONS[self.config.activation](self.c_fc(self.ln_2(x)))

    def mlp_out(self, hidden: jax.Array) -> jax.Array:
        """[K,F] → [K,D]."""
        return self.mlp_proj(hidden)

    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Every method once, which initialises their parameters; not the layer itself."""
        q, _, _ = self.attn_qkv(x, positions)
        return self.attn_out(q) + self.mlp_out(self.mlp_hidden(x))


class Ends(nn.Module):
    """Token and position embeddings, final norm, unembedding."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the sublayers under Hugging Face's names."""
        c = self.config
        init = nn.initializers.normal(0.02)
        self.wte = nn.Embed(c.vocab_size, c.width, embedding_init=init)
        self.wpe = nn.Embed(c.context, c.width, embedding_init=init)
        self.ln_f = _norm(c)
        if not c.tied:
            self.lm_head = nn.Dense(c.vocab_size, use_bias=False)

    def embed(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """[K] tokens and their positions → [K,D]."""
        return self.wte(tokens) + self.wpe(positions)

    def unembed(self, x: jax.Array) -> jax.Array:
        """[...,D] → [...,V]."""
        x = self.ln_f(x)
        return self.wte.attend(x) if self.config.tied else self.lm_head(x)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Both ends, which initialises their parameters."""
        return self.unembed(self.embed(tokens, positions))


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a GPT-2 config.json.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, unknown, or asks for what is not implemented.
    """
    check_keys(
        raw,
        honoured="""vocab_size n_positions n_embd n_layer n_head n_inner
        activation_function layer_norm_epsilon tie_word_embeddings""".split(),
        inert="""n_ctx attn_pdrop embd_pdrop resid_pdrop summary_type summary_use_proj
        summary_activation summary_proj_to_labels summary_first_dropout""".split(),
        required={
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
            "cross_attention_hidden_size": (None,),
            "pruned_heads": (None, {}),
            "quantization_config": (None,),
        },
    )
    width, heads = need(raw, "n_embd"), need(raw, "n_head")
    if width % heads:
        raise MgnpError(f"config.json: n_embd {width} is not a multiple of n_head {heads}")
    activation = raw.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise MgnpError(
            f"config.json has 'activation_function' = {activation!r}; supported are "
            f"{', '.join(_ACTIVATIONS)}"
        )
    return ModelConfig(
        family="gpt2",
        vocab_size=need(raw, "vocab_size"),
        context=need(raw, "n_positions"),
        layers=need(raw, "n_layer"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        mlp_width=raw.get("n_inner") or 4 * width,
        activation=activation,
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        tied=raw.get("tie_word_embeddings", True),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.mlp_width,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def sources(config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint; GPT-2 stores kernels as Linen wants them."""
    table = {
        "ends/wte/embedding": Source("transformer.wte.weight"),
        "ends/wpe/embedding": Source("transformer.wpe.weight"),
        "ends/ln_f/scale": Source("transformer.ln_f.weight"),
        "ends/ln_f/bias": Source("transformer.ln_f.bias"),
    }
    if not config.tied:
        table["ends/lm_head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "transformer.h.{layer}."
    for ours, theirs in (("ln_1", "ln_1"), ("ln_2", "ln_2")):
        table[f"blocks/{ours}/scale"] = Source(f"{layer}{theirs}.weight")
        table[f"blocks/{ours}/bias"] = Source(f"{layer}{theirs}.bias")
    for ours, theirs in (
        ("c_attn", "attn.c_attn"),
        ("attn_proj", "attn.c_proj"),
        ("c_fc", "mlp.c_fc"),
        ("mlp_proj", "mlp.c_proj"),
    ):
        table[f"blocks/{ours}/kernel"] = Source(f"{layer}{theirs}.weight")
        table[f"blocks/{ours}/bias"] = Source(f"{layer}{theirs}.bias")
    return table


def costs(config: ModelConfig) -> ParameterCosts:
    """Parameters per kind of node; every projection has a bias, every norm two vectors."""
    d, e = config.width, config.head_width
    head = 0 if config.tied else config.vocab_size * d
    return ParameterCosts(
        query=(d + 1) * e,
        key=(d + 1) * e,
        value=d + 1,
        z_row=d,
        attn_block=2 * d + d,
        hidden_in=d + 1,
        hidden_row=1,
        output=1,
        mlp_block=2 * d,
        outside=(config.vocab_size + config.context) * d + 2 * d + head,
    )


def narrow(config: ModelConfig, weights: Params, heads: jax.Array, hidden: jax.Array) -> Params:
    """One layer's weights with some heads and hidden neurons only, see `Family`."""
    c = config
    qkv, out = weights["c_attn"], weights["attn_proj"]
    split = qkv["kernel"].reshape(c.width, 3, c.heads, c.head_width)[:, :, heads]
    bias = qkv["bias"].reshape(3, c.heads, c.head_width)[:, heads]
    rows = out["kernel"].reshape(c.heads, c.head_width, c.width)[heads]
    up, down = weights["c_fc"], weights["mlp_proj"]
    return {
        **weights,
        "c_attn": {"kernel": split.reshape(c.width, -1), "bias": bias.reshape(-1)},
        "attn_proj": {**out, "kernel": rows.reshape(-1, c.width)},
        "c_fc": {"kernel": up["kernel"][:, hidden], "bias": up["bias"][hidden]},
        "mlp_proj": {**down, "kernel": down["kernel"][hidden]},
    }


GPT2 = Family(
    block=Block,
    ends=Ends,
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Buffers of the causal mask that old checkpoints carry.
    ignored=("attn.bias", "attn.masked_bias"),
    costs=costs,
    narrow=narrow,
    prefix_token=None,
)
