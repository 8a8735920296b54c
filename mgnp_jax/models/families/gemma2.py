"""Gemma 2: Gemma with norms before and after each half, capped scores, and windows in turn.

Reference: the architecture of Hugging Face's `Gemma2ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families.gemma import BOTH_WAYS, gemma_fields
from mgnp_jax.models.families.llama import COMMON_KEYS, common_config, common_written, sources
from mgnp_jax.models.family import Family
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import number_or_null, one_of, size
from mgnp_jax.models.windows import read_windows, write_windows

KEYS = tuple(
    """attention_bias hidden_activation query_pre_attn_scalar sliding_window layer_types
    final_logit_softcapping attn_logit_softcapping""".split()
)
"""Keys that `capped_fields` reads beside those of Llama, and those of windows."""


def capped_fields(
    raw: Mapping[str, Any], caps: tuple[float | None, float | None]
) -> dict[str, Any]:
    """Fields of `ModelConfig` in which Gemma 2 and 3 differ from Llama, windows aside.

    Args:
      raw: the parsed config.json.
      caps: on the scores of attention and on the logits, where none are said.

    Raises:
      MgnpError: for a key that is missing or not of its type and range.
    """
    kinds = ("attn_logit_softcapping", "final_logit_softcapping")
    attention_cap, logit_cap = (
        number_or_null(raw, key, cap, least=1e-6, largest=1e30) for key, cap in zip(kinds, caps)
    )
    return {
        "activation": one_of(raw, "hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        "norm_after": True,
        "query_scalar": float(size(raw, "query_pre_attn_scalar", 256)),
        "attention_cap": attention_cap,
        "logit_cap": logit_cap,
        **gemma_fields(raw),
    }


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Gemma 2 config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    check_keys(raw, read=(*COMMON_KEYS, *KEYS), inert=("attention_dropout",), required=BOTH_WAYS)
    layers = size(raw, "num_hidden_layers")
    in_turn = [i % 2 == 0 for i in range(layers)]
    said = {"sliding_window": 4096, **raw}
    windows = read_windows(said, layers, size(raw, "max_position_embeddings"), in_turn)
    return common_config(raw, GEMMA2, windows=windows, **capped_fields(raw, (50.0, 30.0)))


def written_fields(model_config: ModelConfig, architecture: str) -> dict[str, Any]:
    """What is read here and in Llama's file, in config.json's words.

    Args:
      model_config: the config.
      architecture: transformers' class of the model.
    """
    c = model_config
    written = common_written(c, architecture) | write_windows(c)
    del written["hidden_act"]
    return written | {
        "hidden_activation": c.activation,
        "attention_bias": c.attention_bias,
        "query_pre_attn_scalar": int(c.query_scalar or c.head_width),
        "attn_logit_softcapping": c.attention_cap,
        "final_logit_softcapping": c.logit_cap,
    }


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    return written_fields(model_config, "Gemma2ForCausalLM")


GEMMA2 = Family(name="gemma2", read_config=read_config, write_config=write_config, sources=sources)
