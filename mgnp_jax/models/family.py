"""What a model family supplies. The table of those that do is in `families.py`.

A family is two Linen modules and the way its checkpoints are written down. `Block` has
the methods below (and `__call__`, which touches them all, for initialisation); `Ends`
has `embed` and `unembed`. Everything else in the package works through these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Params


class Block(Protocol):
    """One layer, a method for each step that families do in their own way.

    Each is a pure function through `apply`, of K tokens one by one; what tokens read from
    each other is attention, the same for all families (`packing.attend`). `attn_out` and
    `mlp_out` are affine: a masked pass uses that W(z) − W(z') is W(z − z') without the bias.
    """

    def attn_qkv(
        self, x: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Residual [K,D] and positions [K] → queries [K,H,E], keys and values [K,KV,E]."""
        ...

    def attn_out(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → what attention writes [K,D]."""
        ...

    def mlp_hidden(self, x: jax.Array) -> jax.Array:
        """Residual [K,D] → neurons after the activation [K,F]."""
        ...

    def mlp_out(self, hidden: jax.Array) -> jax.Array:
        """Neurons [K,F] → what the MLP writes [K,D]."""
        ...


class Source(NamedTuple):
    """Where one leaf of the params comes from in a checkpoint.

    Attributes:
      name: tensor name; `{layer}` stands for the layer number of a stacked leaf.
      transpose: the checkpoint stores [out, in] where Linen wants [in, out].
    """

    name: str
    transpose: bool = False


class ParameterCosts(NamedTuple):
    """How many parameters each kind of kept node accounts for.

    Attributes:
      query: a kept query head.
      key: a kept key-value head (kept while any of its query heads is).
      value: a value neuron of a key-value head (kept while any query head of its
        group keeps that neuron).
      z_row: a kept attention neuron's row of the output projection.
      attn_block: a kept attention block (norm, output bias).
      hidden_in: a kept MLP hidden neuron's incoming weights.
      hidden_row: a kept MLP hidden neuron's outgoing weight to one kept output neuron.
      output: a kept MLP output neuron (its bias).
      mlp_block: a kept MLP block (norm).
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


class Family(NamedTuple):
    """Everything in which one model family differs from another.

    Attributes:
      block: Linen module of one layer, with the methods of `Block`.
      ends: Linen module with `embed(tokens [K], positions [K]) → [K,D]` and
        `unembed(x [...,D]) → logits [...,V]`, the final norm included.
      read_config: parsed config.json → `ModelConfig`; refuses what it cannot honour.
      write_config: the inverse.
      sources: params path (as `"blocks/ln_1/scale"`) → where it stands in a checkpoint.
      ignored: suffixes of checkpoint tensors that carry no weights (mask buffers).
      costs: parameters per kind of node.
      narrow: (config, weights of one layer, heads [H'], hidden [F']) → weights of the layer
        with these heads and hidden neurons only, each head with key and value of its own.
      prefix_token: token put before every prompt where the tokenizer knows it and adds
        no beginning token by itself; None if the family wants none.
    """

    block: type[nn.Module]
    ends: type[nn.Module]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    sources: Callable[[ModelConfig], dict[str, Source]]
    ignored: tuple[str, ...]
    costs: Callable[[ModelConfig], ParameterCosts]
    narrow: Callable[[ModelConfig, Params, jax.Array, jax.Array], Params]
    prefix_token: str | None
