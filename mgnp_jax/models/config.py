"""What a checkpoint's config.json says of the network's shape, checked key by key.

In: the parsed JSON. Out: a `ModelConfig`, hashable, so that it can be a static argument
of a jit-compiled function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from mgnp_jax.types import MgnpError

# Keys that every Hugging Face config may carry and that do not touch the forward pass.
_INERT = frozenset(
    """architectures auto_map bos_token_id eos_token_id pad_token_id sep_token_id
    decoder_start_token_id dtype torch_dtype transformers_version transformers.js_config
    use_cache initializer_range model_type name_or_path _name_or_path task_specific_params
    id2label label2id _num_labels problem_type finetuning_task return_dict output_attentions
    output_hidden_states torchscript use_bfloat16 chunk_size_feed_forward is_encoder_decoder
    gradient_checkpointing tie_encoder_decoder forced_bos_token_id forced_eos_token_id
    prefix exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    tokenizer_class max_length min_length do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate remove_invalid_values
    tf_legacy_loss is_decoder _attn_implementation_autoset""".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and constants of one transformer, the same fields for every family.

    Attributes:
      family: key of `mgnp_jax.models.families.FAMILIES`.
      vocab_size: V.
      context: longest prompt in tokens.
      layers: L.
      width: D, the residual stream.
      heads: H, query heads.
      kv_heads: key-value heads; divides H; equal to H without grouped queries.
      head_width: E.
      mlp_width: F.
      activation: name of the MLP's non-linearity as in config.json.
      norm_eps: added to the variance (or mean square) in every norm.
      tied: whether the unembedding is the embedding's transpose.
      rope_theta: base of the rotary angles; 0 for families with learnt positions.
    """

    family: str
    vocab_size: int
    context: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    activation: str
    norm_eps: float
    tied: bool
    rope_theta: float = 0.0

    def __post_init__(self) -> None:
        """Refuses shapes that no network can have."""
        sizes = "vocab_size context layers width heads kv_heads head_width mlp_width"
        for name in sizes.split():
            if getattr(self, name) < 1:
                raise MgnpError(f"config: {name} must be ≥ 1, got {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise MgnpError(
                f"config: {self.heads} query heads cannot share {self.kv_heads} key-value "
                "heads evenly; num_key_value_heads must divide num_attention_heads"
            )

    def hash(self) -> str:
        """Sixteen hex digits that two configs share exactly when their fields agree."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_keys(
    raw: Mapping[str, Any],
    *,
    honoured: Collection[str],
    inert: Collection[str],
    required: Mapping[str, Collection[Any]],
) -> None:
    """Refuses a config.json that asks for something the code does not do.

    Args:
      raw: the parsed config.json.
      honoured: keys the family reads.
      inert: keys of this family that cannot change an inference pass (dropout rates…).
      required: key → the values under which our forward pass is the right one.

    Raises:
      MgnpError: naming the key, its value and the values that are supported.
    """
    for key, value in raw.items():
        if key in honoured or key in inert or key in _INERT:
            continue
        if key not in required:
            raise MgnpError(
                f"config.json has {key!r} = {value!r}, which this code does not know, so the "
                "network it would build might not be the one meant. If the key cannot change "
                "the forward pass, delete it from a local copy of the checkpoint and load that."
            )
        if value not in required[key]:
            supported = " or ".join(repr(v) for v in required[key])
            raise MgnpError(
                f"config.json has {key!r} = {value!r}, which is not supported: wanted "
                f"{supported}. Use a checkpoint without it."
            )


def need(raw: Mapping[str, Any], key: str) -> Any:
    """Reads a key that has no sensible default.

    Args:
      raw: the parsed config.json.
      key: name of the key.

    Returns:
      Its value.

    Raises:
      MgnpError: if the key is missing.
    """
    if key not in raw:
        raise MgnpError(f"config.json lacks {key!r}; found only {', '.join(sorted(raw))}")
    return raw[key]
