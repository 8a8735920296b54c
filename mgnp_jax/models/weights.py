"""Checkpoint tensors ↔ params: random weights, reading, transposes, stacking over layers."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.family import Source
from mgnp_jax.models.matching import Tensors, match, settle_tie
from mgnp_jax.types import MgnpError, Params


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
      params: float32 leaves, blocks stacked over layers.
      notes: what the user should know, in sentences.
    """

    model_config: ModelConfig
    params: Params
    notes: tuple[str, ...]


def params_from_tensors(model_config: ModelConfig, tensors: Tensors) -> Loaded:
    """Puts a checkpoint's tensors where the Linen modules look for them.

    Args:
      model_config: the model's shape, as config.json says.
      tensors: of the checkpoint, as arrays or still in their files.

    Returns:
      The params and the shape that they have.

    Raises:
      MgnpError: naming tensors that are missing, left over, of another shape or dtype, or not
        all numbers.
    """
    model_config, said = settle_tie(model_config, param_shapes(model_config), tensors)
    found, more = match(model_config, param_shapes(model_config), tensors)
    flat: dict[str, jax.Array] = {}
    for path, parts in found.items():
        layers = [_read(tensors, name, source) for name, source in parts]
        flat[path] = jax.device_put(np.stack(layers) if path.startswith("blocks/") else layers[0])
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return Loaded(model_config, params, (*said, *more))


def _read(tensors: Tensors, name: str, source: Source) -> np.ndarray:
    """One leaf of one layer as float32, in Linen's order."""
    # What float32 cannot hold becomes infinite, which is refused below.
    with np.errstate(over="ignore"):
        array = np.array(tensors[name], np.float32)
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise MgnpError(
            f"tensor {shown(name)} has {bad:,} of {array.size:,} values that are NaN or infinite "
            "in float32: the checkpoint is damaged, or its training diverged; use another"
        )
    array = array if source.rows is None else array[source.rows]
    return array.T if source.transpose else array


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
        leaf = np.asarray(flat[path])
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
