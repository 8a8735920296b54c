"""SmolLM3: Llama with layers that know no positions.

Reference: the architecture of Hugging Face's `SmolLM3ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgnp_jax.files import shown
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
from mgnp_jax.models.values import flag, need, size
from mgnp_jax.models.windows import read_windows, write_windows
from mgnp_jax.types import MgnpError

KEYS = """attention_bias mlp_bias no_rope_layers no_rope_layer_interval use_sliding_window
sliding_window layer_types""".split()


def _rotated(raw: Mapping[str, Any], layers: int) -> list[bool]:
    """[L] which layers know positions."""
    every = size(raw, "no_rope_layer_interval", 4)
    said = raw.get("no_rope_layers")
    if said is None:
        return [(i + 1) % every != 0 for i in range(layers)]
    if not isinstance(said, list) or len(said) < layers or any(x not in (0, 1) for x in said):
        raise MgnpError(
            f"config.json has 'no_rope_layers' = {shown(said)}, wanted 1 (with positions) or 0 for "
            f"each of the {layers} layers"
        )
    return [bool(x) for x in said[:layers]]


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a SmolLM3 config.json.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    inert = ("attention_dropout", "pretraining_tp", "max_window_layers")
    check_keys(raw, read=(*COMMON_KEYS, *KEYS), inert=inert)
    # Left out, transformers takes 4 of them, whatever the number of heads.
    need(raw, "num_key_value_heads")
    layers, context = size(raw, "num_hidden_layers"), size(raw, "max_position_embeddings")
    rotated, used = _rotated(raw, layers), flag(raw, "use_sliding_window", False)
    said = {**raw, "sliding_window": raw.get("sliding_window") if used else None}
    by_default = [said["sliding_window"] is not None and not has for has in rotated]
    fields = {
        "windows": read_windows(said, layers, context, by_default),
        "unrotated": tuple(i for i, has in enumerate(rotated) if not has),
        "mlp_bias": flag(raw, "mlp_bias", False),
        "tied": flag(raw, "tie_word_embeddings", True),
        **attention_biases(raw),
    }
    return common_config(raw, SMOLLM3, theta=2_000_000.0, **fields)


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    c = model_config
    return {
        **common_written(c, "SmolLM3ForCausalLM"),
        **write_windows(c),
        "use_sliding_window": bool(c.windows),
        "no_rope_layers": [int(i not in c.unrotated) for i in range(c.layers)],
        "attention_bias": c.attention_bias,
        "mlp_bias": c.mlp_bias,
    }


SMOLLM3 = Family(
    name="smollm3", read_config=read_config, write_config=write_config, sources=sources
)
