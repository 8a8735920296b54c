"""One layer made of the shared parts: its steps, what its nodes cost, a smaller copy of it."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.norms import norm, norm_frozen
from mgnp_jax.models.parts import Attention, Mlp
from mgnp_jax.types import Params


class Block(nn.Module):
    """One layer, a method for each step, see `family.BlockSteps`."""

    model_config: ModelConfig

    def setup(self) -> None:
        """Declares the parts that the config asks for."""
        c = self.model_config
        self.attention = Attention(c)
        self.mlp = Mlp(c)
        if c.norm_before:
            self.attention_norm = norm(c)
            if not c.shared_norm:
                self.mlp_norm = norm(c)
        if c.norm_after:
            self.attention_post_norm = norm(c)
            self.mlp_post_norm = norm(c)

    def attn_qkv(
        self, x: jax.Array, angles: jax.Array | None, amplitude: float | jax.Array = 1.0
    ) -> tuple[jax.Array, ...]:
        """Residual [K,D], angles [K,R/2] → queries [K,H,E], keys and values [K,KV,E]."""
        return self.attention.read(self.attn_normed(x), angles, amplitude)

    def attn_normed(self, x: jax.Array) -> jax.Array:
        """Residual [...,K,D] → what attention projects [...,K,D]; the first part of `attn_qkv`."""
        return self.attention_norm(x) if self.model_config.norm_before else x

    def attn_project_each(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        angles: jax.Array | None,
        amplitude: float | jax.Array = 1.0,
    ) -> tuple[jax.Array, ...]:
        """The second part of `attn_qkv`, of a normed residual stream of each head's own."""
        return self.attention.read_each(q, k, v, angles, amplitude)

    def attn_out_each(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → what each adds to the projection [H,K,D]."""
        return self.attention.write_each(z)

    def attn_out(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → [K,D]."""
        return self.attention.write(z)

    def attn_write(self, projected: jax.Array) -> jax.Array:
        """[...,K,D] → what attention writes [...,K,D]."""
        return self.attention_post_norm(projected) if self.model_config.norm_after else projected

    def attn_write_frozen(self, part: jax.Array, whole: jax.Array | None) -> jax.Array:
        """A part of a projection, and all of it [...,K,D] → its part in what attention writes."""
        return self._frozen("attention_post_norm", part, whole)

    def mlp_hidden(self, x: jax.Array) -> jax.Array:
        """Residual [K,D] → neurons [K,F]."""
        if not self.model_config.norm_before:
            return self.mlp.read(x)
        before = self.attention_norm if self.model_config.shared_norm else self.mlp_norm
        return self.mlp.read(before(x))

    def mlp_out(self, hidden: jax.Array) -> jax.Array:
        """Neurons [K,F] → [K,D]."""
        return self.mlp.write(hidden)

    def mlp_write(self, projected: jax.Array) -> jax.Array:
        """[K,D] → what the MLP writes [K,D]."""
        return self.mlp_post_norm(projected) if self.model_config.norm_after else projected

    def mlp_write_frozen(self, part: jax.Array, whole: jax.Array | None) -> jax.Array:
        """A part of a projection, and all of it [...,K,D] → its part in what the MLP writes."""
        return self._frozen("mlp_post_norm", part, whole)

    def _frozen(self, name: str, part: jax.Array, whole: jax.Array | None) -> jax.Array:
        if whole is None:
            return part
        return norm_frozen(
            self.model_config, getattr(self, name).variables["params"]["scale"], part, whole
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Every part once, which initialises its parameters; not the layer itself."""
        q, _, _ = self.attn_qkv(x, None)
        out, mlp = self.attn_out(q), self.mlp_out(self.mlp_hidden(x))
        return self.attn_write(out) + self.mlp_write(mlp)


class NodeCosts(NamedTuple):
    """How many parameters each kind of kept node accounts for.

    Attributes:
      query: a kept query head.
      key: a kept key-value head (kept while any of its query heads is).
      value: a value neuron of a key-value head (kept while any query head of its
        group keeps that neuron).
      z_row: a kept attention neuron's row of the output projection.
      attn_block: a kept attention block (norms, those of single heads' queries and keys too, for
        all heads have the same; output bias).
      hidden_in: a kept MLP hidden neuron's incoming weights.
      hidden_row: a kept MLP hidden neuron's outgoing weight to one kept output neuron.
      output: a kept MLP output neuron (its bias).
      mlp_block: a kept MLP block (norms).
      outside: what no gate can remove (embeddings, final norm, unembedding).
    """

    query: int
    key: int
    value: int
    z_row: int
    attn_block: int
    hidden_in: int
    hidden_row: int
    output: int
    mlp_block: int
    outside: int


def node_costs(model_config: ModelConfig) -> NodeCosts:
    """Parameters that each kind of kept node of such a block accounts for.

    Args:
      model_config: the model's shape.

    Returns:
      Counts; with every node kept they add up to the model's parameters.
    """
    c = model_config
    d, e = c.width, c.head_width
    one_norm = d if c.norm == "rms" else 2 * d
    norms = one_norm * (c.norm_before + c.norm_after)
    positions = c.context * d if c.rope_theta is None else 0
    head = 0 if c.tied else c.vocab_size * (d + c.head_bias)
    query = (d + c.qkv_bias + (c.qk_norm == "all")) * e
    return NodeCosts(
        query=query,
        key=query,
        value=d + c.qkv_bias,
        z_row=d,
        attn_block=norms + c.attention_bias * d + 2 * e * (c.qk_norm == "head"),
        hidden_in=(d + c.mlp_bias) * (1 + c.gated_mlp),
        hidden_row=1,
        output=int(c.mlp_bias),
        mlp_block=norms - one_norm * c.shared_norm,
        outside=c.vocab_size * d + positions + one_norm + head,
    )


def narrow(
    model_config: ModelConfig, weights: Params, heads: jax.Array, hidden: jax.Array
) -> Params:
    """One layer's weights with some heads and hidden neurons only.

    Args:
      model_config: shape of the whole layer.
      weights: of it.
      heads: [H'] int32, which query heads.
      hidden: [F'] int32, which hidden neurons.

    Returns:
      Weights of the smaller layer, in which each head has key and value of its own.
    """
    c = model_config
    old, mlp = weights["attention"], weights["mlp"]
    rows = old["o"]["kernel"].reshape(c.heads, c.head_width, c.width)[heads]
    attention: dict[str, Params] = {
        **{name: old[name] for name in ("q_norm", "k_norm") if name in old},
        "o": {**old["o"], "kernel": rows.reshape(-1, c.width)},
    }
    if c.fused_qkv:
        attention["qkv"] = _heads_of(c, old["qkv"], heads, (3, c.heads))
    else:
        readers = heads // (c.heads // c.kv_heads)
        if c.qk_norm == "all":
            # All heads are there, each key as often as others: its norm is that of them once.
            for name, which in (("q_norm", heads), ("k_norm", readers)):
                attention[name] = _heads_of(c, old[name], which, (1, -1))
        for name, which in (("q", heads), ("k", readers), ("v", readers)):
            attention[name] = _heads_of(c, old[name], which, (1, -1))
    reads = {n: {k: v[..., hidden] for k, v in mlp[n].items()} for n in mlp if n != "down"}
    down = {**mlp["down"], "kernel": mlp["down"]["kernel"][hidden]}
    return {**weights, "attention": attention, "mlp": {**reads, "down": down}}


def _heads_of(
    model_config: ModelConfig, dense: Params, which: jax.Array, shape: tuple[int, int]
) -> Params:
    """A projection to heads, cut down to some of them; `shape` is (projections, heads) in it."""

    def cut(leaf: jax.Array) -> jax.Array:
        lead = leaf.shape[:-1]
        split = leaf.reshape(*lead, *shape, model_config.head_width)
        return split[..., which, :].reshape(*lead, -1)

    return {name: cut(leaf) for name, leaf in dense.items()}
