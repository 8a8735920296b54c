"""Checkpoint tensors ↔ params: names, transposes, stacking over layers. safetensors only."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, cast

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError, Params

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


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
        return family.block(model_config).init(key, x, positions)["params"]

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


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a checkpoint directory, in one file or sharded.

    Args:
      directory: holds `model.safetensors`, or its index and the shards it names.

    Returns:
      Tensor name → array, in the dtype of the file.

    Raises:
      MgnpError: if there is none, a shard is missing, or a file is not safetensors.
    """
    if (directory / INDEX).exists():
        try:
            index = json.loads((directory / INDEX).read_text())
            files = sorted(set(index["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MgnpError(
                f"{directory / INDEX} is no index of shards ({type(error).__name__}: {error}); "
                "wanted an object with a weight_map; fetch it again"
            ) from None
    elif (directory / ONE_FILE).exists():
        files = [ONE_FILE]
    else:
        found = ", ".join(sorted(p.name for p in directory.iterdir())) or "nothing"
        raise MgnpError(
            f"{directory} has neither {ONE_FILE} nor {INDEX} (found: {found}). Weights are "
            "read from safetensors only, never from pickle (pytorch_model.bin); convert "
            "with transformers' save_pretrained."
        )
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        try:
            tensors |= safetensors.numpy.load_file(directory / name)
        except FileNotFoundError:
            raise MgnpError(
                f"{directory / INDEX} names the shard {name}, which is not there; copy it "
                "beside the index"
            ) from None
        except safetensors.SafetensorError as error:
            raise MgnpError(
                f"{directory / name} cannot be read as safetensors ({error}); the file may "
                "be cut short or a Git LFS pointer: fetch it again"
            ) from None
    return tensors


def params_from_tensors(model_config: ModelConfig, tensors: dict[str, np.ndarray]) -> Params:
    """Puts a checkpoint's tensors where the Linen modules look for them.

    Args:
      model_config: the model's shape.
      tensors: name → array; emptied as it is read, so that memory holds one copy.

    Returns:
      Params with float32 leaves, blocks stacked over layers.

    Raises:
      MgnpError: naming tensors that are missing, left over, or of another shape.
    """
    family = model_config.family
    shapes = param_shapes(model_config)
    flat: dict[str, jax.Array] = {}

    def fetch(name: str, transpose: bool, shape: tuple[int, ...]) -> np.ndarray:
        # Checkpoints saved from the bare model lack the first part of the name.
        for known in (name, name.split(".", 1)[1]):
            if known in tensors:
                array = tensors.pop(known)
                break
        else:
            raise MgnpError(f"the checkpoint lacks the tensor {name}, which config.json implies")
        array = array.T if transpose else array
        if array.shape != shape:
            raise MgnpError(
                f"tensor {name} has shape {array.shape}, but config.json implies {shape}; "
                "config.json and the weights belong to different models"
            )
        return array.astype(np.float32)

    for path, source in family.sources(model_config).items():
        shape = shapes[path]
        if path.startswith("blocks/"):
            layers = [
                fetch(source.name.format(layer=i), source.transpose, shape[1:])
                for i in range(model_config.layers)
            ]
            flat[path] = jax.device_put(np.stack(layers))
        else:
            flat[path] = jax.device_put(fetch(source.name, source.transpose, shape))
    left = [t for t in tensors if not t.endswith(family.ignored)]
    if model_config.tied:
        left = [t for t in left if t != "lm_head.weight"]
    if left:
        raise MgnpError(
            f"the checkpoint has tensors that a {family.name} of this config.json does "
            f"not use: {', '.join(sorted(left)[:5])}{' …' if len(left) > 5 else ''}; "
            "config.json and the weights belong to different models"
        )
    return flax.traverse_util.unflatten_dict(flat, sep="/")


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
            part = part.T if source.transpose else part
            tensors[source.name.format(layer=i)] = np.ascontiguousarray(part)
    return tensors
