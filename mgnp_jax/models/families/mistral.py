"""Mistral: Llama whose tokens see only a window of those before them, in every layer.

Reference: the architecture of Hugging Face's `MistralForCausalLM`, whose logits the tests
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
from mgnp_jax.models.windows import read_window, write_window


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Mistral config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    check_keys(raw, read=(*COMMON_KEYS, "sliding_window"), inert=("attention_dropout",))
    # Left out, transformers takes 8 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    return common_config(raw, MISTRAL, windows=read_window(raw, 4096))


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return common_written(model_config, "MistralForCausalLM") | write_window(model_config)


MISTRAL = Family(
    name="mistral", read_config=read_config, write_config=write_config, sources=sources
)
