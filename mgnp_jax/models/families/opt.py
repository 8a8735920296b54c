"""OPT: learned positions, LayerNorm before each half, separate projections with biases.

Reference: the architecture of Hugging Face's `OPTForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.family import Family, Source, dense, norm
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import flag, one_of, size
from mgnp_jax.types import MgnpError

OFFSET = 2
"""Rows of the table of positions that stand before that of the first."""


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads an OPT config.json.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    width, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    check_keys(
        raw,
        read="""vocab_size max_position_embeddings hidden_size num_hidden_layers
        num_attention_heads ffn_dim activation_function enable_bias tie_word_embeddings""".split(),
        # Dropout acts in training only.
        inert=("dropout", "attention_dropout", "layerdrop", "init_std"),
        required={
            "do_layer_norm_before": (True,),
            "_remove_final_layer_norm": (False,),
            "layer_norm_elementwise_affine": (True,),
            "word_embed_proj_dim": (None, width),
        },
    )
    if width % heads:
        raise MgnpError(
            f"config.json: hidden_size {width} is not a multiple of num_attention_heads {heads}"
        )
    biased = flag(raw, "enable_bias", True)
    return ModelConfig(
        family=OPT,
        vocab_size=size(raw, "vocab_size"),
        context=size(raw, "max_position_embeddings"),
        layers=size(raw, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        mlp_width=size(raw, "ffn_dim"),
        activation=one_of(raw, "activation_function", ACTIVATIONS, "relu"),
        norm="layer",
        # PyTorch's own, which no key changes.
        norm_eps=1e-5,
        qkv_bias=biased,
        attention_bias=biased,
        mlp_bias=biased,
        tied=flag(raw, "tie_word_embeddings", True),
    )


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    c = model_config
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context,
        "hidden_size": c.width,
        "word_embed_proj_dim": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "ffn_dim": c.mlp_width,
        "activation_function": c.activation,
        "enable_bias": c.attention_bias,
        "tie_word_embeddings": c.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint."""
    c = model_config
    rows = np.arange(OFFSET, OFFSET + c.context)
    places = Source("model.decoder.embed_positions.weight", rows=rows, of=OFFSET + c.context)
    table = {
        "embeddings/token/embedding": Source("model.decoder.embed_tokens.weight"),
        "embeddings/position/embedding": places,
        **norm("embeddings/norm", "model.decoder.final_layer_norm", bias=True),
    }
    if not c.tied:
        table["embeddings/head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "model.decoder.layers.{layer}."
    for ours, theirs in (("attention", "self_attn_layer_norm"), ("mlp", "final_layer_norm")):
        table |= norm(f"blocks/{ours}_norm", f"{layer}{theirs}", bias=True)
    for name, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
        path = f"blocks/attention/{name}"
        table |= dense(path, f"{layer}self_attn.{theirs}", bias=c.qkv_bias)
    for ours, theirs in (("up", "fc1"), ("down", "fc2")):
        table |= dense(f"blocks/mlp/{ours}", f"{layer}{theirs}", bias=c.mlp_bias)
    return table


OPT = Family(name="opt", read_config=read_config, write_config=write_config, sources=sources)
