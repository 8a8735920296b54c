"""Phi-3: Llama whose checkpoints keep queries, keys and values in one matrix, and the MLP's inputs.

Reference: the architecture of Hugging Face's `Phi3ForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families.llama import COMMON_KEYS, common_config, common_written
from mgnp_jax.models.families.llama import sources as llama_sources
from mgnp_jax.models.family import Family, Source, dense
from mgnp_jax.models.rope_config import ORIGINAL, read_rope_width
from mgnp_jax.models.values import number
from mgnp_jax.models.windows import read_window, write_window
from mgnp_jax.types import MgnpError


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a Phi-3 config.json, of transformers 4 or 5.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented; scaled positions (`longrope`) are not.
    """
    check_keys(
        raw,
        read=(*COMMON_KEYS, "sliding_window", "partial_rotary_factor"),
        # Dropout acts in training only; the first context matters to scaled positions alone.
        inert=("attention_dropout", "resid_pdrop", "embd_pdrop", ORIGINAL),
    )
    fields = {
        "windows": read_window(raw, None),
        "norm_eps": number(raw, "rms_norm_eps", 1e-5, least=0, largest=1),
    }
    whole = common_config(raw, PHI3, share="partial_rotary_factor", **fields)
    if whole.rope_scaling is not None:
        raise MgnpError(
            "config.json scales positions in a way that transformers' Phi-3 does not; use a "
            "checkpoint without 'rope_scaling'"
        )
    part = read_rope_width(raw, whole.head_width, "partial_rotary_factor", 1.0)
    return dataclasses.replace(whole, rope_width=part)


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    part = {"partial_rotary_factor": model_config.turned / model_config.head_width}
    return common_written(model_config, "Phi3ForCausalLM") | write_window(model_config) | part


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint."""
    c = model_config
    table, layer = llama_sources(c), "model.layers.{layer}."
    queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
    attention = {"q": queries, "k": keys, "v": keys}
    mlp = {"gate": c.mlp_width, "up": c.mlp_width}
    fused = (("attention", "self_attn.qkv_proj", attention), ("mlp", "mlp.gate_up_proj", mlp))
    for half, theirs, parts in fused:
        first, of = 0, sum(parts.values())
        for name, count in parts.items():
            rows = np.arange(first, first + count)
            path = f"blocks/{half}/{name}"
            table |= dense(path, f"{layer}{theirs}", bias=False, rows=rows, of=of)
            first += count
    return table


PHI3 = Family(name="phi3", read_config=read_config, write_config=write_config, sources=sources)
