"""One batch over several devices: each packs and runs its share of the prompts.

Everything that is shared (weights, log-alpha, kept streams) is replicated; arrays of a batch
get a leading axis of devices, which is sharded. The compiler does the rest: it runs the
vmapped masked pass device by device and sums the gradients.
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
class Devices:
    """The devices that share a batch.

    Attributes:
      count: how many.
      mesh: they, on one axis; None for a single one, which needs no arrangement.
    """

    count: int
    mesh: Mesh | None

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of arrays on every device.

        Args:
          tree: pytree of arrays.
        """
        if self.mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def sizes(self, where: Extent, order: np.ndarray) -> Sizes:
        """Array sizes that serve each device's share of every batch.

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
          sizes: of each device's share.

        Returns:
          Streams and selection; with several devices the arrays of the batch have a leading
          axis of that length.
        """
        if self.mesh is None:
            return prompts.piece(rows, sizes)
        shares = [prompts.piece(part, sizes) for part in np.split(rows, self.count)]
        sharding = NamedSharding(self.mesh, PartitionSpec("prompts"))
        kept, selection = shares[0]
        if selection is None:
            whole = jax.tree.map(lambda *parts: jnp.stack(parts), *(s for s, _ in shares))
            return jax.device_put(whole, sharding), None
        whole = jax.tree.map(lambda *parts: np.stack(parts), *(s for _, s in shares))
        return kept, jax.device_put(whole, sharding)


def devices(count: int) -> Devices:
    """Takes the first devices of the machine.

    Args:
      count: how many.

    Raises:
      MgnpError: if there are fewer.
    """
    if count > jax.device_count():
        raise MgnpError(
            f"devices = {count}, but JAX sees {jax.device_count()} "
            f"({jax.devices()[0].device_kind}); ask for at most as many"
        )
    if count == 1:
        return Devices(count=1, mesh=None)
    return Devices(count=count, mesh=Mesh(np.array(jax.devices()[:count]), ("prompts",)))
