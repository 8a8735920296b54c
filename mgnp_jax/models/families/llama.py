"""Llama: rotary positions, RMSNorm, grouped queries, a gated MLP.

Reference: the architecture of Hugging Face's `LlamaForCausalLM`, whose logits the tests
reproduce; SmolLM2 is one. What other families have in common with it is read here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.family import Family, Source, dense, norm
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.rope_config import read_rope, write_rope
from mgnp_jax.models.values import flag, number, one_of, size
from mgnp_jax.types import MgnpError

COMMON_KEYS = tuple(
    """vocab_size max_position_embeddings hidden_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim intermediate_size hidden_act rms_norm_eps rope_theta
    rope_parameters rope_scaling tie_word_embeddings""".split()
)
"""Keys that `common_config` reads."""


def common_config(
    raw: Mapping[str, Any],
    family: Family,
    *,
    theta: float = 10_000.0,
    share: str | None = None,
    **fields: Any,
) -> ModelConfig:
    """Reads what Llama and its relatives have in common.

    Args:
      raw: the parsed config.json.
      family: of the model.
      theta: base of the rotary angles where none is said.
      share: its key for the share of a head that is turned, which it reads itself.
      fields: of `ModelConfig`, in which it differs from Llama.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    width, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    if "head_width" not in fields and raw.get("head_dim") is None and width % heads:
        raise MgnpError(
            f"config.json: hidden_size {width} is not a multiple of num_attention_heads {heads}"
        )
    context = size(raw, "max_position_embeddings")
    base, scaling = read_rope(raw, context, theta, share=share)
    common = {
        "vocab_size": size(raw, "vocab_size"),
        "context": context,
        "layers": size(raw, "num_hidden_layers"),
        "width": width,
        "heads": heads,
        "kv_heads": size(raw, "num_key_value_heads", heads),
        "head_width": size(raw, "head_dim", max(width // heads, 1)),
        "mlp_width": size(raw, "intermediate_size"),
        "activation": one_of(raw, "hidden_act", ACTIVATIONS, "silu"),
        "norm": "rms",
        "norm_eps": number(raw, "rms_norm_eps", 1e-6, least=0, largest=1),
        "rope_theta": base,
        "rope_scaling": scaling,
        "gated_mlp": True,
        "tied": flag(raw, "tie_word_embeddings", False),
    }
    return ModelConfig(family=family, **(common | fields))


def attention_biases(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Whether all four projections of attention have biases, as fields of `ModelConfig`."""
    biased = flag(raw, "attention_bias", False)
    return {"qkv_bias": biased, "attention_bias": biased}


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Llama config.json, of transformers 4 or 5.

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
        read=(*COMMON_KEYS, "attention_bias", "mlp_bias"),
        # Dropout acts in training only; pretraining_tp splits a product, same values.
        inert=("attention_dropout", "pretraining_tp"),
        required={"rope_interleaved": (False,)},
    )
    mlp_bias = flag(raw, "mlp_bias", False)
    return common_config(raw, LLAMA, mlp_bias=mlp_bias, **attention_biases(raw))


def common_written(model_config: ModelConfig, architecture: str) -> dict[str, Any]:
    """What `common_config` reads, in config.json's words.

    Args:
      model_config: the config.
      architecture: transformers' class of the model.
    """
    return {
        "architectures": [architecture],
        "model_type": model_config.family.name,
        "vocab_size": model_config.vocab_size,
        "max_position_embeddings": model_config.context,
        "hidden_size": model_config.width,
        "num_hidden_layers": model_config.layers,
        "num_attention_heads": model_config.heads,
        "num_key_value_heads": model_config.kv_heads,
        "head_dim": model_config.head_width,
        "intermediate_size": model_config.mlp_width,
        "hidden_act": model_config.activation,
        "rms_norm_eps": model_config.norm_eps,
        **write_rope(model_config),
        "tie_word_embeddings": model_config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    biases = {"attention_bias": model_config.attention_bias, "mlp_bias": model_config.mlp_bias}
    return common_written(model_config, "LlamaForCausalLM") | biases


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint, norms and biases as the config has them."""
    c = model_config
    table = {
        "embeddings/token/embedding": Source("model.embed_tokens.weight"),
        **norm("embeddings/norm", "model.norm", bias=False),
    }
    if not c.tied:
        table["embeddings/head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "model.layers.{layer}."
    for ours, theirs in _norms(c).items():
        table |= norm(f"blocks/{ours}", f"{layer}{theirs}", bias=False)
    biases = dict.fromkeys("qkv", c.qkv_bias) | {"o": c.attention_bias}
    for name, bias in biases.items():
        theirs = f"{layer}self_attn.{name}_proj"
        table |= dense(f"blocks/attention/{name}", theirs, bias=bias)
    for name in ("gate", "up", "down"):
        table |= dense(f"blocks/mlp/{name}", f"{layer}mlp.{name}_proj", bias=c.mlp_bias)
    return table


def _norms(model_config: ModelConfig) -> dict[str, str]:
    """Norms of a layer by their names here → in a checkpoint."""
    c, found = model_config, {}
    if c.norm_before:
        # The name was there before anything followed attention.
        before_mlp = "pre_feedforward" if c.norm_after else "post_attention"
        found |= {"attention_norm": "input", "mlp_norm": before_mlp}
    if c.norm_after:
        found |= {"attention_post_norm": "post_attention", "mlp_post_norm": "post_feedforward"}
    found = {ours: f"{theirs}_layernorm" for ours, theirs in found.items()}
    if c.qk_norm is not None:
        found |= {f"attention/{x}_norm": f"self_attn.{x}_norm" for x in "qk"}
    return found


LLAMA = Family(
    name="llama",
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Precomputed angles that old checkpoints carry.
    ignored=("rotary_emb.inv_freq",),
)
