"""What a model family supplies. The table of those that do is in `families`.

Most of a family is said by its `ModelConfig`: the shared parts are put together accordingly.
What is left is how its checkpoints are written down. A family whose layer is unlike all others
brings a Linen block of its own with the methods of `BlockSteps`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

from mgnp_jax.models.block import Block, NodeCosts, narrow, node_costs
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.parts import Embeddings
from mgnp_jax.types import Params


class BlockSteps(Protocol):
    """One layer, a method for each step.

    Each is a pure function through `apply`, of K tokens one by one; what tokens read from
    each other is attention, the same for all families (`passes.packing.attend`). `attn_out` and
    `mlp_out` are affine: a masked pass uses that W(z) − W(z') is W(z − z') without the bias.
    """

    def attn_qkv(
        self, x: jax.Array, angles: jax.Array | None, amplitude: float | jax.Array = 1.0
    ) -> tuple[jax.Array, ...]:
        """Residual [K,D] → queries [K,H,E], keys and values [K,KV,E].

        Angles [K,R/2] are those of rotary positions; None where positions are learned. What is
        turned is multiplied by the amplitude [].
        """
        ...

    def attn_normed(self, x: jax.Array) -> jax.Array:
        """Residual [...,K,D] → what attention projects [...,K,D]: the first part of `attn_qkv`."""
        ...

    def attn_project_each(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        angles: jax.Array | None,
        amplitude: float | jax.Array = 1.0,
    ) -> tuple[jax.Array, ...]:
        """The second part where each head reads another residual stream, which edges are.

        Queries read [H,K,D], keys and values [KV,K,D] each, all of them normed. A norm over all
        heads' queries together is applied to each stream apart, as if all heads read it.
        """
        ...

    def attn_out_each(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → what each adds to `attn_out` [H,K,D], the bias aside."""
        ...

    def attn_out(self, z: jax.Array) -> jax.Array:
        """Head outputs [K,H,E] → their projection [K,D]."""
        ...

    def attn_write(self, projected: jax.Array) -> jax.Array:
        """Projection [...,K,D] → what attention writes [...,K,D]; the same without `norm_after`."""
        ...

    def attn_write_frozen(self, part: jax.Array, whole: jax.Array | None) -> jax.Array:
        """What a part of the projection [...,K,D] has in what attention writes, the bias aside.

        Linear: the norm's scale is that of the whole projection, None without `norm_after`.
        """
        ...

    def mlp_hidden(self, x: jax.Array) -> jax.Array:
        """Residual [K,D] → neurons after the activation [K,F]."""
        ...

    def mlp_out(self, hidden: jax.Array) -> jax.Array:
        """Neurons [K,F] → their projection [K,D]."""
        ...

    def mlp_write(self, projected: jax.Array) -> jax.Array:
        """Projection [K,D] → what the MLP writes [K,D]; the same without `norm_after`."""
        ...

    def mlp_write_frozen(self, part: jax.Array, whole: jax.Array | None) -> jax.Array:
        """`attn_write_frozen` of the MLP."""
        ...


class Source(NamedTuple):
    """Where one leaf of the params comes from in a checkpoint.

    Attributes:
      name: tensor name; `{layer}` stands for the layer number of a stacked leaf.
      transpose: the checkpoint stores [out, in] where Linen wants [in, out].
      rows: [N] int, which rows of the tensor make the leaf, in its order, as the checkpoint stores
        it; None for all. Several leaves may lie in one tensor.
      of: rows of the tensor in all, where `rows` says which.
      other: a name that the tensor has in other checkpoints.
    """

    name: str
    transpose: bool = False
    rows: np.ndarray | None = None
    of: int = 0
    other: str | None = None

    def stored(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the tensor in a checkpoint.

        Args:
          shape: of the leaf, of one layer.
        """
        shape = shape[::-1] if self.transpose else shape
        return shape if self.rows is None else (self.of, *shape[1:])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Everything in which one model family differs from another.

    Attributes:
      name: its `model_type` in config.json.
      read_config: parsed config.json → `ModelConfig`; refuses what it cannot honour.
      write_config: the inverse.
      sources: params path (as `"blocks/attention/o/kernel"`) → where it stands in a checkpoint.
      ignored: suffixes of checkpoint tensors that carry no weights (mask buffers).
      block: Linen module of one layer, with the methods of `BlockSteps`.
      embeddings: Linen module with `embed(tokens [K], positions [K]) → [K,D]` and
        `unembed(x [...,D]) → logits [...,V]`, the final norm included; and the two halves of that,
        `norm_frozen(part, whole)` with the norm's scale as the whole stream has it, and `read`.
      costs: parameters per kind of node.
      narrow: (config, weights of one layer, heads [H'], hidden [F']) → weights of the layer
        with these heads and hidden neurons only, each head with key and value of its own.
    """

    name: str
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    sources: Callable[[ModelConfig], dict[str, Source]]
    ignored: tuple[str, ...] = ()
    block: type[nn.Module] = Block
    embeddings: type[nn.Module] = Embeddings
    costs: Callable[[ModelConfig], NodeCosts] = node_costs
    narrow: Callable[[ModelConfig, Params, jax.Array, jax.Array], Params] = narrow

    def __repr__(self) -> str:
        """Its name: a family is one object."""
        return f"<family {self.name}>"


def dense(
    path: str,
    name: str,
    *,
    bias: bool,
    transpose: bool = True,
    rows: np.ndarray | None = None,
    of: int = 0,
) -> dict[str, Source]:
    """Where a projection stands in a checkpoint.

    Args:
      path: of it in the params.
      name: of it in the checkpoint.
      bias: whether it has one.
      transpose: whether the checkpoint stores [out, in].
      rows: of [out, in], and of the bias, that are the projection's; None for all.
      of: rows in all.
    """
    found = {f"{path}/kernel": Source(f"{name}.weight", transpose, rows, of)}
    return found | ({f"{path}/bias": Source(f"{name}.bias", False, rows, of)} if bias else {})


def norm(path: str, name: str, *, bias: bool) -> dict[str, Source]:
    """Where a norm stands in a checkpoint.

    Args:
      path: of it in the params.
      name: of it in the checkpoint.
      bias: whether it has one.
    """
    found = {f"{path}/scale": Source(f"{name}.weight")}
    return found | ({f"{path}/bias": Source(f"{name}.bias")} if bias else {})
