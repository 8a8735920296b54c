"""Devices side by side: a mesh of two axes, and arrays put on it.

Along `PROMPTS_AXIS` devices share a batch, along `MODEL_AXIS` the weights (`weight_sharding`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from mgnp_jax.types import MgnpError

PROMPTS_AXIS, MODEL_AXIS = "prompts", "model"


@functools.lru_cache
def mesh_of(devices: int, shard: int = 1) -> Mesh | None:
    """The first devices of the machine, or of all processes, in a mesh.

    Args:
      devices: how many.
      shard: neighbours that hold one copy of the weights between them; divides `devices`.

    Returns:
      Axes (`PROMPTS_AXIS`, `MODEL_AXIS`); None for a single device, which needs no arrangement.

    Raises:
      MgnpError: if there are fewer devices, `shard` does not divide them, or one of several
        processes would have none of them.
    """
    check_shard(devices, shard)
    if devices > jax.device_count():
        raise MgnpError(
            f"devices = {devices}, but JAX sees {jax.device_count()} "
            f"({jax.devices()[0].device_kind}); ask for at most as many"
        )
    if devices == 1:
        return None
    chosen = jax.devices()[:devices]
    if len({device.process_index for device in chosen}) < jax.process_count():
        raise MgnpError(
            f"devices = {devices} leaves some of the {jax.process_count()} processes without "
            f"any; ask for all {jax.device_count()}"
        )
    return Mesh(np.array(chosen).reshape(-1, shard), (PROMPTS_AXIS, MODEL_AXIS))


def check_shard(devices: int, shard: int) -> None:
    """Refuses groups of devices that cannot be formed.

    Args:
      devices: in all.
      shard: of a group.

    Raises:
      MgnpError: if one does not divide the other.
    """
    if shard < 1 or devices % shard:
        raise MgnpError(
            f"shard = {shard} does not divide devices = {devices}: the weights are shared by "
            "groups of `shard` devices, and the groups share a batch; ask for a multiple of it"
        )


def on_host(tree: Any) -> Any:
    """Arrays as NumPy's, also those of which parts lie on devices of other processes.

    Args:
      tree: pytree of arrays; those of a mesh of several processes must be asked for by all of them.
    """

    def gathered(leaf: Any) -> Any:
        here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        if here or leaf.is_fully_replicated:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(gathered, tree))


def put_on(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """An array on the devices of a mesh, of all processes if there are several.

    Args:
      sharding: of the array.
      leaf: the whole array, which each process has, or one that lies on the devices.
    """
    whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    if not (sharding.mesh.is_multi_process and whole):
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = put_on(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
