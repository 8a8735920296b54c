"""Gemma: Llama with norm weights around one, scaled embeddings and heads of any width.

Reference: the architecture of Hugging Face's `GemmaForCausalLM`, whose logits the tests
reproduce. What its successors have in common with it is here, too.
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
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import flag, need, one_of, size

BOTH_WAYS = {"use_bidirectional_attention": (None, False)}
"""Keys under whose values alone tokens see only those before them."""


def gemma_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `ModelConfig` in which all Gemmas differ from Llama.

    Args:
      raw: the parsed config.json.

    Raises:
      MgnpError: for a key that is missing or not of its type and range.
    """
    # Left out, transformers takes the number of one of its own models.
    need(raw, "num_key_value_heads")
    return {
        "head_width": size(raw, "head_dim", 256),
        "norm_offset": True,
        "embedding_scale": size(raw, "hidden_size") ** 0.5,
        "tied": flag(raw, "tie_word_embeddings", True),
        **attention_biases(raw),
    }


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Gemma config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    read = (*COMMON_KEYS, "attention_bias")
    check_keys(raw, read=read, inert=("attention_dropout",), required=BOTH_WAYS)
    activation = one_of(raw, "hidden_act", ACTIVATIONS, "gelu_pytorch_tanh")
    # Published configs say gelu, and mean its approximation.
    activation = "gelu_pytorch_tanh" if activation == "gelu" else activation
    return common_config(raw, GEMMA, activation=activation, **gemma_fields(raw))


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    written = common_written(model_config, "GemmaForCausalLM")
    return written | {"attention_bias": model_config.attention_bias}


GEMMA = Family(name="gemma", read_config=read_config, write_config=write_config, sources=sources)
