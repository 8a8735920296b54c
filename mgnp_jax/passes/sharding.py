"""Sharding: a batch over devices, and in parts that run one after another.

Each device packs and runs its shard of the prompts. Everything that all need (log-alpha, cached
runs) is replicated; arrays of a batch get a leading axis of devices, which is sharded, and the
compiler does the rest: it runs the vmapped masked pass device by device and sums the gradients.
Parts are another leading axis, which the objective walks along. Weights are on every device, or
shared by groups of them, each of which then is one in what follows (`models.weight_sharding`).

The devices may be those of several processes. Each then has all prompts and does everything, runs
the shards of its own devices, and comes to the same circuit.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.mesh import MODEL_AXIS, PROMPTS_AXIS, mesh_of, put_on
from mgnp_jax.models.weight_sharding import placed, shared_shapes
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.spans import Sizes, Spans
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.types import MgnpError, Params, checksum


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSharding:
    """How a batch is cut up.

    Attributes:
      parts: run one after another.
      devices: that share each part, or groups of them that share the weights.
      mesh: of the devices; None for a single one, which needs no arrangement.
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

    def settled(self, tree: Any) -> Any:
        """What a step returns, on every device again: the compiler may leave it in parts.

        So the next step is given what the first one was, and is not compiled anew.

        Args:
          tree: pytree of arrays that all devices need.
        """
        if self.mesh is None or self.mesh.shape[MODEL_AXIS] == 1:
            return tree
        return self._put(tree, PartitionSpec())

    def place(self, model_config: ModelConfig, weights: Params) -> Params:
        """Puts weights where they belong: on every device, or some of them on each.

        Args:
          model_config: the model's shape.
          weights: its own, or those of what is left of its layers.

        Raises:
          MgnpError: if there are several processes and their weights differ; those that are shared
            are not compared, as no process has them all.
        """
        if self.mesh is None or self.mesh.shape[MODEL_AXIS] == 1:
            return self.replicate(weights)
        return placed(model_config, self.mesh, weights)

    def place_smaller(self, model_config: ModelConfig, smaller: Compaction) -> Compaction:
        """Puts what is left of a model where it belongs: weights as `place`, the rest everywhere.

        Args:
          model_config: the whole model's shape.
          smaller: what is left.
        """
        weights = [self.place(model_config, segment.weights) for segment in smaller.segments]
        bare = (dataclasses.replace(s, weights={}) for s in smaller.segments)  # type: ignore[type-var]
        rest = self.replicate(dataclasses.replace(smaller, segments=tuple(bare)))  # type: ignore[type-var]
        segments = zip(rest.segments, weights, strict=True)
        whole = tuple(dataclasses.replace(s, weights=w) for s, w in segments)
        return dataclasses.replace(rest, segments=whole)

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
            return self._put(split.rows(rows, sizes), PartitionSpec())
        parts = [split.rows(shard, sizes) for shard in np.split(rows, self.count)]
        axes = self._axes
        return self._put(_stack(parts, list(axes.values())), PartitionSpec(*axes))

    def abstract_rows(self, shard: CachedRuns) -> CachedRuns:
        """What `rows` returns, as shapes.

        Args:
          shard: shapes of one shard's.
        """
        axes = self._axes
        return self._abstract(shard, list(axes.values()), PartitionSpec(*axes))

    def abstract_replicas(self, tree: Any) -> Any:
        """What `replicate` returns, as shapes.

        Args:
          tree: pytree of arrays, or of their shapes.
        """
        return self._abstract(tree, [], PartitionSpec())

    def abstract_weights(self, model_config: ModelConfig, weights: Params) -> Params:
        """What `place` returns, as shapes.

        Args:
          model_config: the model's shape.
          weights: shapes of its own.
        """
        return weights if self.mesh is None else shared_shapes(model_config, self.mesh, weights)

    @property
    def _axes(self) -> dict[str | None, int]:
        """Leading axes of a batch's arrays: along which devices they lie, and how long they are."""
        axes = {None: self.parts, PROMPTS_AXIS: self.devices}
        return {name: count for name, count in axes.items() if count > 1}

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
            return jax.tree.map(lambda leaf: put_on(sharding, leaf), tree)
        return jax.device_put(tree, sharding)


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


def batch_sharding(devices: int, parts: int = 1, shard: int = 1) -> BatchSharding:
    """Takes the first devices of the machine.

    Args:
      devices: how many share a part.
      parts: of a batch, run one after another.
      shard: devices that share the weights, and so run the same prompts; divides `devices`.

    Raises:
      MgnpError: as `mesh_of` does.
    """
    mesh = mesh_of(devices, shard)
    return BatchSharding(parts=parts, devices=devices // shard, mesh=mesh)


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
