"""Checkpoint tensors ↔ params: random weights, reading, transposes, stacking over layers."""

from __future__ import annotations

import functools
import hashlib
import itertools
from typing import Any, Literal, NamedTuple, cast

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.matching import Tensors, match, settle_tie
from mgnp_jax.models.mesh import on_host
from mgnp_jax.models.reading import CHUNK_BYTES, Leaf, stored_dtype
from mgnp_jax.models.weight_sharding import sharding_notes, weight_sharding
from mgnp_jax.types import Params

LoadedDtype = Literal["float32", "stored"]
"""What weights are read as: float32, or in the 16 bits that they are stored in."""


@functools.partial(jax.jit, static_argnums=1)
def init_params(key: jax.Array, model_config: ModelConfig) -> Params:
    """Random weights of the given shape, blocks stacked over layers.

    Args:
      key: [] typed key; consumed.
      model_config: the model's shape.

    Returns:
      Params with float32 leaves.
    """
    family = model_config.family
    tokens = positions = jnp.zeros(1, jnp.int32)
    x = jnp.zeros((1, model_config.width), jnp.float32)

    def block(key: jax.Array) -> Any:
        return family.block(model_config).init(key, x)["params"]

    embeddings_key, blocks_key = jax.random.split(key)
    embeddings = family.embeddings(model_config).init(embeddings_key, tokens, positions)["params"]
    blocks = jax.vmap(block)(jax.random.split(blocks_key, model_config.layers))
    return {"embeddings": embeddings, "blocks": blocks}


@functools.lru_cache
def param_shapes(model_config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by path, without computing anything.

    Args:
      model_config: the model's shape.

    Returns:
      `"blocks/…"` and `"embeddings/…"` paths to shapes; blocks have the layer axis first.
    """
    tree = jax.eval_shape(lambda k: init_params(k, model_config), jax.random.key(0))
    flat = cast(dict[str, Any], flax.traverse_util.flatten_dict(tree, sep="/"))
    return {path: leaf.shape for path, leaf in flat.items()}


class Loaded(NamedTuple):
    """What a checkpoint comes to.

    Attributes:
      model_config: the shape that holds: untied where the checkpoint shows it.
      params: float32 leaves, or of 16 bits if asked for; blocks stacked over layers.
      notes: what the user should know, in sentences.
    """

    model_config: ModelConfig
    params: Params
    notes: tuple[str, ...]


def params_from_tensors(
    model_config: ModelConfig,
    tensors: Tensors,
    *,
    dtype: LoadedDtype = "float32",
    mesh: Mesh | None = None,
) -> Loaded:
    """Puts a checkpoint's tensors where the Linen modules look for them.

    Args:
      model_config: the model's shape, as config.json says.
      tensors: of the checkpoint, as arrays or still in their files.
      dtype: of the leaves; `stored` leaves what is stored in 16 bits as it is.
      mesh: of devices that hold the weights together, each of which is given what it is to hold
        and no more is read; None for JAX's default device.

    Returns:
      The params and the shape that they have.

    Raises:
      MgnpError: naming tensors that are missing, left over, of another shape or dtype, or not
        all numbers.
    """
    model_config, said = settle_tie(model_config, param_shapes(model_config), tensors)
    shapes = param_shapes(model_config)
    found, more = match(model_config, shapes, tensors)
    flat: dict[str, jax.Array] = {}
    for path, parts in found.items():
        kind = stored_dtype(tensors, parts) if dtype == "stored" else np.dtype(dtype)
        leaf = Leaf(tensors, parts, shapes[path], path.startswith("blocks/"), kind)
        flat[path] = _on_devices(model_config, mesh, path, leaf)
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    if mesh is not None:
        more = (*more, *sharding_notes(model_config, mesh, shapes))
    return Loaded(model_config, params, (*said, *more))


def _on_devices(model_config: ModelConfig, mesh: Mesh | None, path: str, leaf: Leaf) -> jax.Array:
    """Reads what this process's devices hold of a leaf, what several hold once."""
    if mesh is None:
        return jax.device_put(leaf.read((slice(None),) * len(leaf.shape)))
    sharding = weight_sharding(model_config, mesh, path, leaf.shape)
    indices = sharding.addressable_devices_indices_map(leaf.shape).items()
    shards: list[jax.Array] = []
    # A slice has no hash in older Pythons.
    by_index = sorted(indices, key=lambda item: str(item[1]))
    for _, holders in itertools.groupby(by_index, key=lambda item: str(item[1])):
        (device, index), *others = holders
        first = jax.device_put(leaf.read(index or ()), device)
        shards += [first, *(jax.device_put(first, other) for other, _ in others)]
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, shards)


def weights_checksum(params: Params) -> str:
    """What `checksum` gives for the weights in float32, however they lie in memory.

    Args:
      params: a model's weights, in 16 bits or not, on one device or shared by several.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} float32".encode())
        # In parts, so that not all of a large leaf is on the host, too.
        size = max(CHUNK_BYTES * len(leaf) // max(4 * leaf.size, 1), 1)
        for start in range(0, len(leaf), size):
            part = np.asarray(on_host(leaf[start : start + size]), np.float32)
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def tensors_from_params(model_config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """The inverse of `params_from_tensors`, for writing a checkpoint.

    Args:
      model_config: the model's shape.
      params: its weights.

    Returns:
      Tensor name → contiguous array, named as transformers names them.
    """
    flat = cast(dict[str, Any], flax.traverse_util.flatten_dict(dict(params), sep="/"))
    tensors: dict[str, np.ndarray] = {}
    for path, source in model_config.family.sources(model_config).items():
        leaf = np.asarray(on_host(flat[path]), np.float32)
        parts = list(leaf) if path.startswith("blocks/") else [leaf]
        for i, part in enumerate(parts):
            part = np.ascontiguousarray(part.T if source.transpose else part)
            name = source.name.format(layer=i)
            if source.rows is None:
                tensors[name] = part
            else:
                whole = tensors.setdefault(name, np.zeros((source.of, *part.shape[1:]), part.dtype))
                whole[source.rows] = part
    return tensors
