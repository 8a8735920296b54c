"""Sharding: a batch over devices, and in parts that run one after another.

Each device packs and runs its shard of the prompts. Everything that all need (weights,
log-alpha, cached runs) is replicated; arrays of a batch get a leading axis of devices, which
is sharded, and the compiler does the rest: it runs the vmapped masked pass device by device
and sums the gradients. Parts are another leading axis, which the objective walks along.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgnp_jax.passes.spans import Sizes, Spans
from mgnp_jax.passes.split_runs import BatchRuns, SplitRuns
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSharding:
    """How a batch is cut up.

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
        """Shards in all."""
        return self.parts * self.devices

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of arrays on every device.

        Args:
          tree: pytree of arrays.
        """
        if self.mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def sizes(self, spans: Spans, order: np.ndarray) -> Sizes:
        """Array sizes that serve each shard of every batch.

        Args:
          spans: of the prompts.
          order: [steps, B] rows.
        """
        return spans.sizes(order.reshape(-1, order.shape[1] // self.count))

    def rows(self, split: SplitRuns, rows: np.ndarray, sizes: Sizes) -> BatchRuns:
        """A batch, ready for a step.

        Args:
          split: the prompts with their plain passes.
          rows: [B] int32.
          sizes: of each shard.

        Returns:
          Plain passes and selection. Arrays of the batch have a leading axis of parts if there are
          several, then one of devices if there are several.
        """
        if self.count == 1:
            return split.rows(rows, sizes)
        parts = [split.rows(shard, sizes) for shard in np.split(rows, self.count)]
        axes = [n for n in (self.parts, self.devices) if n > 1]
        kept, selection = parts[0]
        if selection is None:
            whole = _stack([runs for runs, _ in parts], axes)
            return self._place(whole), None
        return kept, self._place(_stack([chosen for _, chosen in parts], axes))

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


def batch_sharding(devices: int, parts: int = 1) -> BatchSharding:
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
    return BatchSharding(parts=parts, devices=devices, mesh=mesh)


def check_device() -> None:
    """Starts JAX, which says in many lines that it cannot.

    Raises:
      MgnpError: saying why, and what decides which device is used.
    """
    try:
        jax.devices()
    # Plugins of devices raise what they like.
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS")
        told = f" with JAX_PLATFORMS={asked}" if asked else ""
        said = str(error).partition(" (set JAX_PLATFORMS")[0].partition("\n")[0]
        raise MgnpError(
            f"JAX does not start{told}: {said or type(error).__name__}. Is there such a device, "
            "and JAX's build for it? Unset JAX_PLATFORMS to use what there is, or set it to cpu"
        ) from None
