"""Weights over several devices: which axis of each is cut up, decided here for every family.

Of the devices along `MODEL_AXIS` each has some of the heads, of the MLP's hidden neurons and of
the vocabulary. Where these cannot be divided, weights are cut along the residual width instead,
over which any product can sum; what that does not divide, either, is on every device, and is said.
The compiler finds from there which values devices send to each other.

Reference: tensor parallelism as in Megatron-LM (arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.mesh import MODEL_AXIS, put_on
from mgnp_jax.types import Params

HEADS, FUSED_HEADS, HIDDEN = "heads", "heads of a fused projection", "MLP hidden neurons"
VOCABULARY, WIDTH = "vocabulary", "residual width"

Choices = tuple[tuple[int, str], ...]
"""Axes of a leaf that may be cut, counted from its end, and what lies along each; best first."""


def _from_residual(projection: str, what: str) -> dict[str, Choices]:
    return {f"{projection}/kernel": ((-1, what), (-2, WIDTH)), f"{projection}/bias": ((-1, what),)}


def _to_residual(projection: str, what: str) -> dict[str, Choices]:
    return {f"{projection}/kernel": ((-2, what), (-1, WIDTH))}


_CHOICES: dict[str, Choices] = {
    **_from_residual("attention/qkv", FUSED_HEADS),
    **_from_residual("attention/q", HEADS),
    **_from_residual("attention/k", HEADS),
    **_from_residual("attention/v", HEADS),
    **_to_residual("attention/o", HEADS),
    **_from_residual("mlp/gate", HIDDEN),
    **_from_residual("mlp/up", HIDDEN),
    **_to_residual("mlp/down", HIDDEN),
    **_from_residual("embeddings/head", VOCABULARY),
    "embeddings/token/embedding": ((-2, VOCABULARY), (-1, WIDTH)),
    "embeddings/position/embedding": ((-1, WIDTH),),
}
"""By path; what is not here (norms, biases of what all devices add to) is on every device."""


def weight_sharding(
    model_config: ModelConfig, mesh: Mesh, path: str, shape: tuple[int, ...]
) -> NamedSharding:
    """How one leaf of the params lies on devices.

    Args:
      model_config: the model's shape; of a model from which nodes were taken, that of the whole.
      mesh: as `mesh_of` makes it.
      path: of the leaf, as `"blocks/attention/q/kernel"`; of one layer's weights without `blocks`.
      shape: of the leaf, which may have fewer heads and hidden neurons than the model.
    """
    axis, _ = _axis_of(model_config, mesh.shape[MODEL_AXIS], path, shape)
    names = [None] * len(shape)
    spec = PartitionSpec() if axis is None else _with(names, axis, MODEL_AXIS)
    return NamedSharding(mesh, spec)


def _with(names: list[Any], axis: int, name: str) -> PartitionSpec:
    names[axis] = name
    return PartitionSpec(*names)


def _axis_of(
    model_config: ModelConfig, shard: int, path: str, shape: tuple[int, ...]
) -> tuple[int | None, str | None]:
    """The axis to cut, None for none; and what is along it."""
    if shard == 1 or 0 in shape:
        return None, None
    # Whole heads, so that no two devices have to compute with one.
    together = {HEADS: model_config.head_width, FUSED_HEADS: 3 * model_config.head_width}
    for axis, what in _CHOICES.get(path.removeprefix("blocks/"), ()):
        if shape[axis] % (shard * together.get(what, 1)) == 0:
            return axis, what
    return None, None


def sharding_notes(
    model_config: ModelConfig, mesh: Mesh, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """What is to be said of weights that do not divide as they should.

    Args:
      model_config: the model's shape.
      mesh: as `mesh_of` makes it.
      shapes: of the params' leaves, by path.

    Returns:
      Sentences.
    """
    shard, notes = mesh.shape[MODEL_AXIS], []
    told: dict[tuple[str | None, str], list[str]] = {}
    for path, shape in shapes.items():
        choices = _CHOICES.get(path.removeprefix("blocks/"), ())
        # Of a projection its kernel tells; a bias is small.
        if shard > 1 and choices and not path.endswith("/bias"):
            _, got = _axis_of(model_config, shard, path, shape)
            if got != choices[0][1]:
                name = path.removeprefix("blocks/").rpartition("/")[0]
                told.setdefault((got, choices[0][1]), []).append(name)
    for (got, wanted), names in told.items():
        instead = "on every device" if got is None else f"cut along the {got} instead"
        notes.append(
            f"the {wanted} of {', '.join(names)} cannot be divided by {shard} devices: "
            f"these weights are {instead}"
        )
    return tuple(notes)


def placed(model_config: ModelConfig, mesh: Mesh | None, weights: Params) -> Params:
    """Weights where they belong on a mesh; what lies there already stays.

    Args:
      model_config: the model's shape.
      mesh: as `mesh_of` makes it; None leaves weights where they are.
      weights: params of the model, or weights of some of its layers.
    """
    if mesh is None:
        return weights
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shared_shapes(model_config, mesh, weights))
    return jax.tree.map(put_on, shardings, weights)


def shared_shapes(model_config: ModelConfig, mesh: Mesh, weights: Params) -> Params:
    """Shapes of weights with how they lie on a mesh.

    Args:
      model_config: the model's shape.
      mesh: as `mesh_of` makes it.
      weights: params of the model, or weights of some of its layers, or their shapes.
    """

    def shape_of(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = "/".join(part.key for part in path)
        sharding = weight_sharding(model_config, mesh, name, leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map_with_path(shape_of, weights)
