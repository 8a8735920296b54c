"""How a batch is shared out: over devices, and into parts that run one after another.

Each device packs and runs its share of the prompts. Everything that all need (weights,
log-alpha, kept streams) is replicated; arrays of a batch get a leading axis of devices, which
is sharded, and the compiler does the rest: it runs the vmapped masked pass device by device
and sums the gradients. Parts are another leading axis, which the objective walks along.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgnp_jax.metrics.extent import Extent, Sizes
from mgnp_jax.train.prompts import Piece, Prompts
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shares:
    """How a batch is shared out.

    Attributes:
      parts: run one after another.
      devices: that share each part.
      mesh: the devices on one axis; None for a single one, which needs no arrangement.
    """

    parts: int
    devices: int
    mesh: Mesh | None

    @property
    def count(self) -> int:
        """Shares in all."""
        return self.parts * self.devices

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of arrays on every device.

        Args:
          tree: pytree of arrays.
        """
        if self.mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def sizes(self, where: Extent, order: np.ndarray) -> Sizes:
        """Array sizes that serve each share of every batch.

        Args:
          where: extents of the prompts.
          order: [steps, B] rows.
        """
        return where.sizes(order.reshape(-1, order.shape[1] // self.count))

    def piece(self, prompts: Prompts, rows: np.ndarray, sizes: Sizes) -> Piece:
        """A batch, ready for a step.

        Args:
          prompts: the split.
          rows: [B] int32.
          sizes: of each share.

        Returns:
          Streams and selection. Arrays of the batch have a leading axis of parts if there are
          several, then one of devices if there are several.
        """
        if self.count == 1:
            return prompts.piece(rows, sizes)
        pieces = [prompts.piece(share, sizes) for share in np.split(rows, self.count)]
        axes = [n for n in (self.parts, self.devices) if n > 1]
        kept, selection = pieces[0]
        if selection is None:
            whole = _stack([streams for streams, _ in pieces], axes)
            return self._place(whole), None
        return kept, self._place(_stack([chosen for _, chosen in pieces], axes))

    def _place(self, tree: Any) -> Any:
        if self.mesh is None:
            return tree
        spec = PartitionSpec("prompts") if self.parts == 1 else PartitionSpec(None, "prompts")
        return jax.device_put(tree, NamedSharding(self.mesh, spec))


def _stack(trees: list[Any], axes: list[int]) -> Any:
    def one(*leaves: Any) -> Any:
        module = jnp if isinstance(leaves[0], jax.Array) else np
        return module.stack(leaves).reshape(*axes, *leaves[0].shape)

    return jax.tree.map(one, *trees)


def shares(devices: int, parts: int = 1) -> Shares:
    """Takes the first devices of the machine.

    Args:
      devices: how many share a part.
      parts: of a batch, run one after another.

    Raises:
      MgnpError: if there are fewer devices.
    """
    if devices > jax.device_count():
        raise MgnpError(
            f"devices = {devices}, but JAX sees {jax.device_count()} "
            f"({jax.devices()[0].device_kind}); ask for at most as many"
        )
    mesh = None
    if devices > 1:
        mesh = Mesh(np.array(jax.devices()[:devices]), ("prompts",))
    return Shares(parts=parts, devices=devices, mesh=mesh)
