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
from mgnp_jax.models.values import count, flag, need, size
from mgnp_jax.models.windows import read_windows, write_windows

WINDOW_KEYS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")


def later_windows(raw: Mapping[str, Any]) -> tuple[int, ...]:
    """Windows in the layers from `max_window_layers` on, where they are turned on at all.

    Args:
      raw: the parsed config.json.

    Raises:
      MgnpError: for a key that is not of its type and range.
    """
    layers, used = size(raw, "num_hidden_layers"), flag(raw, "use_sliding_window", False)
    said = {**raw, "sliding_window": raw.get("sliding_window", 4096) if used else None}
    first = count(raw, "max_window_layers", 28)
    windowed = [said["sliding_window"] is not None and i >= first for i in range(layers)]
    return read_windows(said, layers, size(raw, "max_position_embeddings"), windowed)


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
    check_keys(raw, read=(*COMMON_KEYS, *WINDOW_KEYS), inert=("attention_dropout",))
    # Left out, transformers takes 32 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    return common_config(raw, QWEN2, qkv_bias=True, windows=later_windows(raw))


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    written = common_written(model_config, "Qwen2ForCausalLM") | write_windows(model_config)
    return written | {"use_sliding_window": bool(model_config.windows)}


QWEN2 = Family(name="qwen2", read_config=read_config, write_config=write_config, sources=sources)
