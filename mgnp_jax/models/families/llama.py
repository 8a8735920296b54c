"""Llama: rotary positions, RMSNorm, grouped queries, a gated MLP, no biases.

Reference: the architecture of Hugging Face's `LlamaForCausalLM`, whose logits the tests
reproduce; SmolLM2 is one. What other families have in common with it is read here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig, check_keys
from mgnp_jax.models.family import Family, Source, dense, norm
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import flag, number, one_of, size
from mgnp_jax.types import MgnpError

COMMON_KEYS = tuple(
    """vocab_size max_position_embeddings hidden_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim intermediate_size hidden_act rms_norm_eps rope_theta
    rope_parameters rope_scaling tie_word_embeddings""".split()
)
"""Keys that `common_config` reads."""


def rope_theta(raw: Mapping[str, Any]) -> float:
    """Base of the rotary angles, of transformers 4 (top level) or 5 (`rope_parameters`).

    Args:
      raw: the parsed config.json.

    Raises:
      MgnpError: if positions are scaled, or places that say the base disagree.
    """
    said: dict[str, float] = {}
    ropes = []
    # In the order in which transformers prefers them.
    for key in ("rope_scaling", "rope_parameters"):
        rope = raw.get(key)
        if rope is not None and not isinstance(rope, dict):
            raise MgnpError(f"config.json has {key!r} = {shown(rope)}, wanted an object or null")
        if not rope:
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or set(rope) - {"rope_type", "type", "rope_theta"}:
            raise MgnpError(
                f"config.json has {key!r} = {shown(rope)}; only rope_type 'default' with a "
                "rope_theta is supported. Use a checkpoint without scaled positions."
            )
        ropes.append(rope)
        if "rope_theta" in rope:
            said[f"{key}.rope_theta"] = _base(rope)
    if "rope_theta" in raw:
        said["rope_theta"] = _base(raw)
    place = ropes[0] if ropes and "rope_theta" in ropes[0] else raw
    theta = _base(place) if "rope_theta" in place else 10_000.0
    if set(said.values()) - {theta}:
        listed = " and ".join(f"{name!r} = {value:g}" for name, value in said.items())
        raise MgnpError(
            f"config.json has {listed}, where transformers 5 takes {theta:g}; delete the wrong "
            "one from a local copy of the checkpoint"
        )
    return theta


def _base(place: Mapping[str, Any]) -> float:
    # The angles are computed in float32.
    return number(place, "rope_theta", 0, least=1e-30, largest=1e30)


def common_config(raw: Mapping[str, Any], family: Family, **flags: Any) -> ModelConfig:
    """Reads what Llama and its relatives have in common.

    Args:
      raw: the parsed config.json.
      family: of the model.
      flags: fields of `ModelConfig` in which it differs from Llama.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    width, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    if raw.get("head_dim") is None and width % heads:
        raise MgnpError(
            f"config.json: hidden_size {width} is not a multiple of num_attention_heads {heads}"
        )
    return ModelConfig(
        family=family,
        vocab_size=size(raw, "vocab_size"),
        context=size(raw, "max_position_embeddings"),
        layers=size(raw, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=size(raw, "num_key_value_heads", heads),
        head_width=size(raw, "head_dim", width // heads),
        mlp_width=size(raw, "intermediate_size"),
        activation=one_of(raw, "hidden_act", ACTIVATIONS, "silu"),
        norm="rms",
        norm_eps=number(raw, "rms_norm_eps", 1e-6, least=0, largest=1),
        rope_theta=rope_theta(raw),
        gated_mlp=True,
        tied=flag(raw, "tie_word_embeddings", False),
        **flags,
    )


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
        read=COMMON_KEYS,
        # Dropout acts in training only; pretraining_tp splits a product, same values.
        inert=("attention_dropout", "pretraining_tp"),
        required={"rope_interleaved": (False,)},
    )
    return common_config(raw, LLAMA)


def common_written(model_config: ModelConfig) -> dict[str, Any]:
    """What `common_config` reads, in config.json's words."""
    return {
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
        "rope_theta": model_config.rope_theta,
        "tie_word_embeddings": model_config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return {"architectures": ["LlamaForCausalLM"], **common_written(model_config)}


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint, biases as the config has them."""
    c = model_config
    table = {
        "embeddings/token/embedding": Source("model.embed_tokens.weight"),
        **norm("embeddings/norm", "model.norm", bias=False),
    }
    if not c.tied:
        table["embeddings/head/kernel"] = Source("lm_head.weight", transpose=True)
    layer = "model.layers.{layer}."
    norms = (("attention_norm", "input_layernorm"), ("mlp_norm", "post_attention_layernorm"))
    for ours, theirs in norms:
        table |= norm(f"blocks/{ours}", f"{layer}{theirs}", bias=False)
    biases = dict.fromkeys("qkv", c.qkv_bias) | {"o": c.attention_bias}
    for name, bias in biases.items():
        theirs = f"{layer}self_attn.{name}_proj"
        table |= dense(f"blocks/attention/{name}", theirs, bias=bias, transpose=True)
    for name in ("gate", "up", "down"):
        theirs = f"{layer}mlp.{name}_proj"
        table |= dense(f"blocks/mlp/{name}", theirs, bias=c.mlp_bias, transpose=True)
    return table


LLAMA = Family(
    name="llama",
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Precomputed angles that old checkpoints carry.
    ignored=("rotary_emb.inv_freq",),
)
