"""GPT-NeoX (Pythia): attention and MLP read the same residual stream; parts of heads are turned.

Reference: the architecture of Hugging Face's `GPTNeoXForCausalLM`, whose logits the tests
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
from mgnp_jax.models.rope_config import read_rope, read_rope_width, write_rope
from mgnp_jax.models.values import flag, number, one_of, size
from mgnp_jax.types import MgnpError


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a GPT-NeoX config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    check_keys(
        raw,
        read="""vocab_size max_position_embeddings hidden_size num_hidden_layers
        num_attention_heads intermediate_size hidden_act layer_norm_eps tie_word_embeddings
        use_parallel_residual attention_bias rotary_pct rotary_emb_base rope_scaling
        rope_parameters""".split(),
        # Dropout acts in training only.
        inert=("attention_dropout", "hidden_dropout", "classifier_dropout"),
        required={"is_decoder": (False, True)},
    )
    width, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    if width % heads:
        raise MgnpError(
            f"config.json: hidden_size {width} is not a multiple of num_attention_heads {heads}"
        )
    context, head_width = size(raw, "max_position_embeddings"), width // heads
    base, scaling = read_rope(raw, context, base="rotary_emb_base", share="rotary_pct")
    biased = flag(raw, "attention_bias", True)
    return ModelConfig(
        family=GPT_NEOX,
        vocab_size=size(raw, "vocab_size"),
        context=context,
        layers=size(raw, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=head_width,
        mlp_width=size(raw, "intermediate_size"),
        activation=one_of(raw, "hidden_act", ACTIVATIONS, "gelu"),
        norm="layer",
        norm_eps=number(raw, "layer_norm_eps", 1e-5, least=0, largest=1),
        rope_theta=base,
        rope_scaling=scaling,
        rope_width=read_rope_width(raw, head_width, "rotary_pct", 0.25),
        parallel=flag(raw, "use_parallel_residual", True),
        qkv_bias=biased,
        attention_bias=biased,
        mlp_bias=True,
        tied=flag(raw, "tie_word_embeddings", False),
    )


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    c, rope = model_config, write_rope(model_config)
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_width,
        "hidden_act": c.activation,
        "layer_norm_eps": c.norm_eps,
        "rotary_emb_base": rope.pop("rope_theta"),
        "rotary_pct": c.turned / c.head_width,
        **rope,
        "use_parallel_residual": c.parallel,
        "attention_bias": c.attention_bias,
        "tie_word_embeddings": c.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint, in which each head's q, k and v lie side by side."""
    c = model_config
    table = {
        "embeddings/token/embedding": Source("gpt_neox.embed_in.weight"),
        **norm("embeddings/norm", "gpt_neox.final_layer_norm", bias=True),
    }
    if not c.tied:
        table["embeddings/head/kernel"] = Source("embed_out.weight", True, other="lm_head.weight")
    layer = "gpt_neox.layers.{layer}."
    for ours, theirs in (("attention", "input"), ("mlp", "post_attention")):
        table |= norm(f"blocks/{ours}_norm", f"{layer}{theirs}_layernorm", bias=True)
    rows = np.arange(3 * c.width).reshape(c.heads, 3, c.head_width)
    for i, name in enumerate("qkv"):
        theirs, own = f"{layer}attention.query_key_value", rows[:, i].ravel()
        where = {"rows": own, "of": rows.size}
        table |= dense(f"blocks/attention/{name}", theirs, bias=c.qkv_bias, **where)
    table |= dense("blocks/attention/o", f"{layer}attention.dense", bias=c.attention_bias)
    for ours, theirs in (("up", "dense_h_to_4h"), ("down", "dense_4h_to_h")):
        table |= dense(f"blocks/mlp/{ours}", f"{layer}mlp.{theirs}", bias=True)
    return table


GPT_NEOX = Family(
    name="gpt_neox",
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Buffers of the causal mask and precomputed angles that old checkpoints carry.
    ignored=("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"),
)
