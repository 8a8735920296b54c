"""The shape of one transformer, and which of a config.json's keys can be left unread.

In: the parsed config.json, in a family's own words. Out: a `ModelConfig`, hashable, so that it
can be a static argument of a jit-compiled function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mgnp_jax.types import MgnpError

if TYPE_CHECKING:
    from mgnp_jax.models.family import Family

# In nearly every config.json, and none is of a model: not worth importing transformers for.
_ABOUT_THE_FILE = ("model_type", "architectures", "bos_token_id", "eos_token_id")

# What transformers acts on whatever the model: → values with which it changes nothing.
_ACTED_ON = {"quantization_config": (None,), "pruned_heads": (None, {})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and constants of one transformer, the same fields for every family.

    Attributes:
      family: what the shared parts do not say: checkpoint names, special tokens.
      vocab_size: V.
      context: longest prompt in tokens.
      layers: L.
      width: D, the residual stream.
      heads: H, query heads.
      kv_heads: key-value heads; divides H; equal to H without grouped queries.
      head_width: E.
      mlp_width: F.
      activation: name of the MLP's non-linearity as in config.json.
      norm: LayerNorm (mean taken out, with bias) or RMSNorm.
      norm_eps: added to the variance (or mean square) in every norm.
      norm_before: whether attention and MLP read the residual stream through a norm.
      norm_after: whether what they write passes a norm.
      rope_theta: base of the rotary angles; None where positions are learned.
      parallel: whether the MLP reads the residual stream that attention reads, not what
        attention has written to.
      gated_mlp: whether a neuron is activation(gate) · up.
      qkv_bias: whether queries, keys and values have biases.
      fused_qkv: whether one projection makes all three.
      attention_bias: whether attention's output projection has a bias.
      mlp_bias: whether the MLP's projections have biases.
      tied: whether the unembedding is the embedding's transpose.
    """

    family: Family
    vocab_size: int
    context: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    activation: str
    norm: Literal["layer", "rms"]
    norm_eps: float
    norm_before: bool = True
    norm_after: bool = False
    rope_theta: float | None = None
    parallel: bool = False
    gated_mlp: bool = False
    qkv_bias: bool = False
    fused_qkv: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False

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
        if self.fused_qkv and self.kv_heads != self.heads:
            raise MgnpError(
                f"config: one projection for queries, keys and values needs as many of each, got "
                f"{self.heads} query heads and {self.kv_heads} key-value heads"
            )

    def hash(self) -> str:
        """A text that two configs share exactly when their fields agree.

        Fields at their defaults have no part in it, so that one that is added later changes no
        hash; the number before the colon is that of this way of hashing.
        """
        fields = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        }
        text = json.dumps(fields | {"family": self.family.name}, sort_keys=True)
        return f"2:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def check_keys(
    raw: Mapping[str, Any],
    *,
    read: Collection[str],
    inert: Collection[str] = (),
    required: Mapping[str, Collection[Any]] | None = None,
) -> None:
    """Refuses a config.json that asks for something the code does not do.

    What transformers' own config class of that `model_type` does not declare, transformers'
    model does not act on, and neither need we. What it declares must be read here, or be inert,
    or be at its default.

    Args:
      raw: the parsed config.json.
      read: keys that the family reads.
      inert: keys that the class declares and that cannot change an inference pass (dropout).
      required: key → the values under which our forward pass is the right one.

    Raises:
      MgnpError: naming the key, its value and the values that are supported.
    """
    required = _ACTED_ON | dict(required or {})
    for key, value in raw.items():
        if key in read or key in inert or key in _ABOUT_THE_FILE:
            continue
        if key not in required:
            declared = _declared(str(raw.get("model_type")))
            if key not in declared or value == declared[key]:
                continue
            supported = repr(declared[key])
        elif value in required[key]:
            continue
        else:
            supported = " or ".join(repr(v) for v in required[key])
        raise MgnpError(
            f"config.json has {key!r} = {value!r}, which is not supported: wanted {supported}. Use "
            "a checkpoint without it; if it cannot change the forward pass, delete the key from a "
            "local copy of the checkpoint and load that."
        )


def _declared(model_type: str) -> dict[str, Any]:
    """What transformers' config class has of its own, beyond what all have: name → default."""
    # Imported here: it takes a second, and most config.json of ours need no answer.
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise MgnpError(
            f"transformers knows no model_type {model_type!r}, so it cannot be told which keys of "
            "its config.json matter; name all of them to check_keys"
        )
    own = inspect.signature(CONFIG_MAPPING[model_type]).parameters
    common = inspect.signature(PreTrainedConfig).parameters
    # Of every model, but declared by each: what a task's head or generation would use.
    about_use = {"use_cache", "pad_token_id", "initializer_range"}
    return {n: p.default for n, p in own.items() if n not in common and n not in about_use}


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


def one_of(raw: Mapping[str, Any], key: str, known: Collection[str], default: str) -> str:
    """Reads a key that names one of several things.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      known: names that are implemented.
      default: where the key is missing.

    Raises:
      MgnpError: for another name.
    """
    value = raw.get(key, default)
    if value not in known:
        raise MgnpError(
            f"config.json has {key!r} = {value!r}; supported are {', '.join(sorted(known))}"
        )
    return value
