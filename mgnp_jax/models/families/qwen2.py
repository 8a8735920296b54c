"""Qwen2 (and Qwen2.5): Llama with biases on queries, keys and values.

Reference: the architecture of Hugging Face's `Qwen2ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig, check_keys
from mgnp_jax.models.families.llama import COMMON_KEYS, common_config, common_written, sources
from mgnp_jax.models.family import Family
from mgnp_jax.models.values import need
from mgnp_jax.types import MgnpError


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Qwen2 config.json, of transformers 4 or 5.

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
        read=(*COMMON_KEYS, "layer_types"),
        # The window's size and its first layer mean nothing while it is not used.
        inert=("attention_dropout", "sliding_window", "max_window_layers"),
        required={"use_sliding_window": (False,)},
    )
    # Left out, transformers takes 32 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    model_config = common_config(raw, QWEN2, qkv_bias=True)
    kinds = raw.get("layer_types")
    full = ["full_attention"] * model_config.layers if kinds is not None else None
    if kinds != full:
        raise MgnpError(
            f"config.json has 'layer_types' = {shown(kinds)}, wanted 'full_attention' for each of "
            f"the {model_config.layers} layers"
        )
    return model_config


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return {"architectures": ["Qwen2ForCausalLM"], **common_written(model_config)}


QWEN2 = Family(name="qwen2", read_config=read_config, write_config=write_config, sources=sources)
