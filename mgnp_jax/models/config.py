"""The shape of one transformer, and which of a config.json's keys can be left unread.

In: the parsed config.json, in a family's own words. Out: a `ModelConfig`, hashable, so that it
can be a static argument of a jit-compiled function.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mgnp_jax.files import shown
from mgnp_jax.types import MgnpError

if TYPE_CHECKING:
    from mgnp_jax.models.family import Family

# In nearly every config.json, and none is of a model: not worth importing transformers for.
_ABOUT_THE_FILE = ("model_type", "architectures", "bos_token_id", "eos_token_id")

# What transformers acts on whatever the model, though no config class declares it: → values with
# which it changes nothing.
_ACTED_ON = {
    "quantization_config": (None,),
    "per_layer_config": (None, {}),
    "transformers_weights": (None,),
    "is_causal": (True,),
}


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
        if self.rope_theta is not None and self.head_width % 2:
            raise MgnpError(
                f"config: rotary positions turn pairs, so head_dim (or hidden_size / "
                f"num_attention_heads) must be even, got {self.head_width}"
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
      MgnpError: naming the key, its value and the values that are supported; or two keys that
        transformers takes for one, with different values.
    """
    required = _ACTED_ON | dict(required or {})
    for key, value in raw.items():
        if key in read or key in inert or key in _ABOUT_THE_FILE:
            continue
        if key in required:
            supported = required[key]
        else:
            declared, aliases = _declared(str(raw.get("model_type")))
            if key in aliases and aliases[key] in read:
                _check_alias(raw, key, aliases[key])
            if key not in declared:
                continue
            supported = (declared[key],)
        if value not in supported:
            raise MgnpError(
                f"config.json has {shown(key)} = {shown(value)}, which is not supported: wanted "
                f"{' or '.join(map(repr, supported))}. Use a checkpoint without it; if it cannot "
                "change the forward pass, delete the key from a local copy of the checkpoint and "
                "load that."
            )


def _check_alias(raw: Mapping[str, Any], alias: str, key: str) -> None:
    """Refuses two names of one thing with different values; transformers would take the alias."""
    said = raw.get(key)
    if not isinstance(said, int | float | str) or raw[alias] != said:
        other = f"{key!r} = {shown(raw[key])}" if key in raw else f"no {key!r}"
        raise MgnpError(
            f"config.json has {alias!r} = {shown(raw[alias])}, which transformers takes for "
            f"{key!r}, and {other}; keep the right one, as {key!r}, in a local copy of the "
            "checkpoint"
        )


@functools.cache
def _declared(model_type: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What transformers' config class has of its own: name → default, other name → name."""
    # Imported here: it takes a second, and most config.json of ours need no answer.
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise MgnpError(
            f"transformers knows no model_type {shown(model_type)}, so it cannot be told which "
            "keys of its config.json matter; name all of them to check_keys"
        )
    config_class = CONFIG_MAPPING[model_type]
    own = inspect.signature(config_class).parameters
    common = inspect.signature(PreTrainedConfig).parameters
    # Of every model, but declared by each: what a task's head or generation would use.
    about_use = {"use_cache", "pad_token_id", "initializer_range"}
    declared = {n: p.default for n, p in own.items() if n not in common and n not in about_use}
    return declared, config_class.attribute_map
