"""OLMo 2: Llama with its norms after attention and MLP alone, and on all queries and keys.

Reference: the architecture of Hugging Face's `Olmo2ForCausalLM`, whose logits the tests
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
from mgnp_jax.models.values import number


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads an OLMo 2 config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    check_keys(raw, read=(*COMMON_KEYS, "attention_bias"), inert=("attention_dropout",))
    fields = {
        "norm_before": False,
        "norm_after": True,
        "qk_norm": "all",
        "norm_eps": number(raw, "rms_norm_eps", 1e-5, least=0, largest=1),
    }
    return common_config(raw, OLMO2, **fields, **attention_biases(raw))


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    written = common_written(model_config, "Olmo2ForCausalLM")
    return written | {"attention_bias": model_config.attention_bias}


OLMO2 = Family(name="olmo2", read_config=read_config, write_config=write_config, sources=sources)
