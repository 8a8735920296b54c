"""Sharding: a batch over devices, and in parts that run one after another.

Each device packs and runs its shard of the prompts. Everything that all need (weights,
log-alpha, cached runs) is replicated; arrays of a batch get a leading axis of devices, which
is sharded, and the compiler does the rest: it runs the vmapped masked pass device by device
and sums the gradients. Parts are another leading axis, which the objective walks along.

The devices may be those of several processes. Each then has all prompts and does everything, runs
the shards of its own devices, and comes to the same circuit.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.spans import Sizes, Spans
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.types import MgnpError, checksum


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

        Raises:
          MgnpError: if there are several processes and theirs differ.
        """
        if self.mesh is not None and self.mesh.is_multi_process:
            _check_same(tree)
        return self._put(tree, PartitionSpec())

    def sizes(self, spans: Spans, order: np.ndarray) -> Sizes:
        """Array sizes that serve each shard of every batch.

        Args:
          spans: of the prompts.
          order: [steps, B] rows.
        """
        return spans.sizes(order.reshape(-1, order.shape[1] // self.count))

    def rows(self, split: SplitRuns, rows: np.ndarray, sizes: Sizes) -> CachedRuns:
        """A batch, ready for a step.

        Args:
          split: the prompts with their plain passes.
          rows: [B] int32.
          sizes: of each shard.

        Returns:
          Plain passes. Arrays have a leading axis of parts if there are several, then one of
          devices if there are several.
        """
        if self.count == 1:
            return split.rows(rows, sizes)
        parts = [split.rows(shard, sizes) for shard in np.split(rows, self.count)]
        return self._put(_stack(parts, self._axes), self._spec)

    def abstract_replicas(self, tree: Any) -> Any:
        """What `replicate` returns, as shapes.

        Args:
          tree: pytree of arrays, or of their shapes.
        """
        return self._abstract(tree, [], PartitionSpec())

    def abstract_rows(self, shard: CachedRuns) -> CachedRuns:
        """What `rows` returns, as shapes.

        Args:
          shard: shapes of one shard's.
        """
        return self._abstract(shard, self._axes, self._spec)

    @property
    def _axes(self) -> list[int]:
        """Leading axes of a batch's arrays."""
        return [count for count in (self.parts, self.devices) if count > 1]

    @property
    def _spec(self) -> PartitionSpec:
        """How those lie on the devices."""
        return PartitionSpec("prompts") if self.parts == 1 else PartitionSpec(None, "prompts")

    def _abstract(self, tree: Any, axes: list[int], spec: PartitionSpec) -> Any:
        sharding = None if self.mesh is None else NamedSharding(self.mesh, spec)

        def one(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype, sharding=sharding)

        return jax.tree.map(one, tree)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)
        if self.mesh.is_multi_process:
            return jax.tree.map(functools.partial(_put_own_shards, sharding), tree)
        return jax.device_put(tree, sharding)


def _put_own_shards(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """Makes an array of all processes from one that each has the whole of."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if _is_key(leaf):
        data = _put_own_shards(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _check_same(tree: Any) -> None:
    """Refuses what differs between processes, of which each would go its own way."""
    arrays = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)
    own = np.frombuffer(bytes.fromhex(checksum(arrays)), np.uint8)
    if len(np.unique(multihost_utils.process_allgather(own), axis=0)) > 1:
        raise MgnpError(
            "processes that share devices must do the same, but their keys, weights or figures "
            "differ; give each of them the same key, model, prompts and config"
        )


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
      MgnpError: if there are fewer devices, or one of several processes would have none of them.
    """
    if devices > jax.device_count():
        raise MgnpError(
            f"devices = {devices}, but JAX sees {jax.device_count()} "
            f"({jax.devices()[0].device_kind}); ask for at most as many"
        )
    mesh = None
    if devices > 1:
        chosen = jax.devices()[:devices]
        if len({device.process_index for device in chosen}) < jax.process_count():
            raise MgnpError(
                f"devices = {devices} leaves some of the {jax.process_count()} processes without "
                f"any; ask for all {jax.device_count()}"
            )
        mesh = Mesh(np.array(chosen), ("prompts",))
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
