"""Qwen2 (and Qwen2.5): Llama with biases on queries, keys and values, and windows in some layers.

Reference: the architecture of Hugging Face's `Qwen2ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families.llama import COMMON_KEYS, common_config, common_written, sources
from mgnp_jax.models.family import Family
from mgnp_jax.models.values import need
from mgnp_jax.models.windows import LATER_KEYS, read_later_windows, write_windows


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
    check_keys(raw, read=(*COMMON_KEYS, *LATER_KEYS), inert=("attention_dropout",))
    # Left out, transformers takes 32 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    return common_config(raw, QWEN2, qkv_bias=True, windows=read_later_windows(raw))


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    written = common_written(model_config, "Qwen2ForCausalLM") | write_windows(model_config)
    return written | {"use_sliding_window": bool(model_config.windows)}


QWEN2 = Family(name="qwen2", read_config=read_config, write_config=write_config, sources=sources)
