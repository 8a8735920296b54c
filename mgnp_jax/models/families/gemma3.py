"""Gemma 3, its text model: Gemma 2 with norms on queries and keys, and angles of two kinds.

Reference: the architecture of Hugging Face's `Gemma3ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families.gemma import BOTH_WAYS
from mgnp_jax.models.families.gemma2 import KEYS, capped_fields, written_fields
from mgnp_jax.models.families.llama import COMMON_KEYS, common_config, sources
from mgnp_jax.models.family import Family
from mgnp_jax.models.rope_config import read_rope
from mgnp_jax.models.values import LARGEST, size
from mgnp_jax.models.windows import read_windows
from mgnp_jax.types import MgnpError

UNCAPPED = {"attn_logit_softcapping": (None,)}
"""A key that transformers' Gemma 3 keeps of Gemma 2, and does not act on."""

_KINDS = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}


def _ropes(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config as a model would have it whose layers were all of one kind: full, with windows."""
    nested, old = raw.get("rope_parameters"), ("rope_scaling", *_KINDS.values())
    if nested is None:
        key = _KINDS["sliding_attention"]
        return dict(raw), {key: raw[key]} if key in raw else {}
    if not isinstance(nested, dict) or set(nested) - set(_KINDS):
        raise MgnpError(
            f"config.json has 'rope_parameters' = {shown(nested)}, wanted an object with "
            f"{' and '.join(_KINDS)}"
        )
    twice = [key for key in old if raw.get(key) is not None]
    if twice:
        raise MgnpError(
            f"config.json has 'rope_parameters' and {twice[0]!r}, which say the same thing; delete "
            "one from a local copy of the checkpoint"
        )
    rest = {key: value for key, value in raw.items() if key not in old}
    full, local = (rest | {"rope_parameters": nested.get(kind)} for kind in _KINDS)
    return full, local


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads the config.json of a Gemma 3 text model, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    own = ("rope_local_base_freq", "sliding_window_pattern")
    read = {*COMMON_KEYS, *KEYS, *own} - UNCAPPED.keys()
    check_keys(raw, read=read, inert=("attention_dropout",), required=BOTH_WAYS | UNCAPPED)
    layers, context = size(raw, "num_hidden_layers"), size(raw, "max_position_embeddings")
    every = size(raw, "sliding_window_pattern", 6)
    said = {"sliding_window": 4096, **raw}
    # Whatever the context: a window tells whose angles a layer has, even where it hides nothing.
    in_turn = [(i + 1) % every != 0 for i in range(layers)]
    windows = read_windows(said, layers, LARGEST + 1, in_turn)
    full, local = _ropes(raw)
    theta, scaling = read_rope(local, context, 10_000.0, base="rope_local_base_freq")
    if scaling is not None:
        raise MgnpError(
            f"config.json has 'rope_parameters' = {shown(raw['rope_parameters'])}, of which scaled "
            "positions are not supported in layers with windows"
        )
    fields = capped_fields(raw, (None, None)) | {"qk_norm": "head", "local_rope_theta": theta}
    return common_config(full, GEMMA3, theta=1_000_000.0, windows=windows, **fields)


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    local = {"rope_local_base_freq": model_config.local_rope_theta}
    return written_fields(model_config, "Gemma3ForCausalLM") | local


GEMMA3 = Family(
    name="gemma3_text", read_config=read_config, write_config=write_config, sources=sources
)
