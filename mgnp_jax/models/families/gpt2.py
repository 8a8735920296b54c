"""GPT-2: learned positions, LayerNorm before each half, one fused q-k-v projection, biases.

Reference: the architecture of Hugging Face's `GPT2LMHeadModel`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.family import Family, Source, dense, norm
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import flag, number, one_of, size
from mgnp_jax.types import MgnpError


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a GPT-2 config.json.

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
        read="""vocab_size n_positions n_embd n_layer n_head n_inner
        activation_function layer_norm_epsilon tie_word_embeddings""".split(),
        inert="""attn_pdrop embd_pdrop resid_pdrop summary_type summary_use_proj
        summary_activation summary_proj_to_labels summary_first_dropout""".split(),
    )
    width, heads = size(raw, "n_embd"), size(raw, "n_head")
    if width % heads:
        raise MgnpError(f"config.json: n_embd {width} is not a multiple of n_head {heads}")
    return ModelConfig(
        family=GPT2,
        vocab_size=size(raw, "vocab_size"),
        context=size(raw, "n_positions"),
        layers=size(raw, "n_layer"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        mlp_width=size(raw, "n_inner", 4 * width),
        activation=one_of(raw, "activation_function", ACTIVATIONS, "gelu_new"),
        norm="layer",
        norm_eps=number(raw, "layer_norm_epsilon", 1e-5, least=0, largest=1),
        qkv_bias=True,
        fused_qkv=True,
        attention_bias=True,
        mlp_bias=True,
        tied=flag(raw, "tie_word_embeddings", True),
    )


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model_config.vocab_size,
        "n_positions": model_config.context,
        "n_embd": model_config.width,
        "n_layer": model_config.layers,
        "n_head": model_config.heads,
        "n_inner": model_config.mlp_width,
        "activation_function": model_config.activation,
        "layer_norm_epsilon": model_config.norm_eps,
        "tie_word_embeddings": model_config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint; GPT-2 stores kernels as Linen wants them."""
    table = {
        "embeddings/token/embedding": Source("transformer.wte.weight"),
        "embeddings/position/embedding": Source("transformer.wpe.weight"),
        **norm("embeddings/norm", "transformer.ln_f", bias=True),
    }
    if not model_config.tied:
        table["embeddings/head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "transformer.h.{layer}."
    for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
        table |= norm(f"blocks/{ours}", f"{layer}{theirs}", bias=True)
    for ours, theirs in (
        ("attention/qkv", "attn.c_attn"),
        ("attention/o", "attn.c_proj"),
        ("mlp/up", "mlp.c_fc"),
        ("mlp/down", "mlp.c_proj"),
    ):
        table |= dense(f"blocks/{ours}", f"{layer}{theirs}", bias=True, transpose=False)
    return table


GPT2 = Family(
    name="gpt2",
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Buffers of the causal mask that old checkpoints carry.
    ignored=("attn.bias", "attn.masked_bias"),
)
