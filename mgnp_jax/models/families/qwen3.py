"""Qwen3: Llama with a norm on the queries and keys of each head.

Reference: the architecture of Hugging Face's `Qwen3ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families.llama import (
    COMMON_KEYS,
    attention_biases,
    common_config,
    common_written,
    sources,
)
from mgnp_jax.models.family import Family
from mgnp_jax.models.values import need, size
from mgnp_jax.models.windows import LATER_KEYS, read_later_windows, write_windows


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Qwen3 config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    read = (*COMMON_KEYS, *LATER_KEYS, "attention_bias")
    check_keys(raw, read=read, inert=("attention_dropout",))
    # Left out, transformers takes 32 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    own = {"qk_norm": "head", "head_width": size(raw, "head_dim", 128)}
    return common_config(
        raw, QWEN3, windows=read_later_windows(raw), **own, **attention_biases(raw)
    )


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    written = common_written(model_config, "Qwen3ForCausalLM") | write_windows(model_config)
    used = bool(model_config.windows)
    return written | {"use_sliding_window": used, "attention_bias": model_config.attention_bias}


QWEN3 = Family(name="qwen3", read_config=read_config, write_config=write_config, sources=sources)
