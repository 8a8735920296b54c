"""The shape of one transformer, the same words for every family.

A `ModelConfig` is hashable, so that it can be a static argument of a jit-compiled function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Literal

from mgnp_jax.models.rotary import RopeScaling
from mgnp_jax.types import MgnpError

if TYPE_CHECKING:
    from mgnp_jax.models.family import Family


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
      rope_scaling: of the angles; None for plain rotary positions.
      rope_width: how many of a head's E numbers are turned; None for all.
      local_rope_theta: base in the layers that have a window, unscaled there; None where
        angles are the same in all layers.
      unrotated: layers without positions of any kind.
      windows: for each layer, how many tokens a token sees, itself included; 0 where it sees
        all before it. Empty where that is so in all layers.
      query_scalar: whose root divides queries' products with keys; None for E.
      attention_cap: c of c · tanh(score / c) on the scores of attention; None for no cap.
      logit_cap: the same on the logits.
      qk_norm: whether queries and keys pass a norm: of each `head` alone, or of `all` together.
      norm_offset: whether a norm's weights are what is added to a scale of one.
      embedding_scale: what token embeddings are multiplied by where they are read.
      parallel: whether the MLP reads the residual stream that attention reads, not what
        attention has written to.
      shared_norm: whether both read it through one norm.
      gated_mlp: whether a neuron is activation(gate) · up.
      qkv_bias: whether queries, keys and values have biases.
      fused_qkv: whether one projection makes all three.
      attention_bias: whether attention's output projection has a bias.
      mlp_bias: whether the MLP's projections have biases.
      tied: whether the unembedding is the embedding's transpose.
      head_bias: whether an unembedding of its own has a bias.
      numbers: what weights that lie in 16 bits act as; no property of the model, but every pass
        must know it.
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
    rope_scaling: RopeScaling | None = None
    rope_width: int | None = None
    local_rope_theta: float | None = None
    unrotated: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    query_scalar: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    qk_norm: Literal["head", "all"] | None = None
    norm_offset: bool = False
    embedding_scale: float = 1.0
    parallel: bool = False
    shared_norm: bool = False
    gated_mlp: bool = False
    qkv_bias: bool = False
    fused_qkv: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    head_bias: bool = False
    numbers: Literal["float32", "bfloat16"] = "float32"

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
        if self.rope_theta is not None and (self.turned % 2 or not self.turned):
            part = "" if self.rope_width is None else ", or the part of it that is turned,"
            raise MgnpError(
                f"config: rotary positions turn pairs, so head_dim (or hidden_size / "
                f"num_attention_heads){part} must be even, got {self.turned}"
            )
        if self.windows and len(self.windows) != self.layers:
            raise MgnpError(
                f"config: wanted a window for each of {self.layers} layers, got {self.windows}"
            )
        if self.fused_qkv and self.kv_heads != self.heads:
            raise MgnpError(
                f"config: one projection for queries, keys and values needs as many of each, got "
                f"{self.heads} query heads and {self.kv_heads} key-value heads"
            )

    @property
    def turned(self) -> int:
        """R, how many of a head's numbers rotary positions turn."""
        return self.head_width if self.rope_width is None else self.rope_width

    def hash(self) -> str:
        """A text that two configs share exactly when their fields agree, `numbers` aside.

        Fields at their defaults have no part in it, so that one that is added later changes no
        hash; the number before the colon is that of this way of hashing.
        """
        fields = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "numbers" and getattr(self, f.name) != f.default
        }
        if self.rope_scaling is not None:
            fields["rope_scaling"] = dataclasses.asdict(self.rope_scaling)
        text = json.dumps(fields | {"family": self.family.name}, sort_keys=True)
        return f"2:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
