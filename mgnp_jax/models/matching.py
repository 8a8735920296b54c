"""Which tensor of a checkpoint is which leaf of the params; and if they do not fit, why.

Only names, shapes and dtypes are looked at, so that what does not fit is refused before anything
is read; what is read is the two ends of a tie, to see whether they are one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.family import Source
from mgnp_jax.models.files import Stored
from mgnp_jax.types import MgnpError

Tensors = Mapping[str, "Stored | np.ndarray"]
"""A checkpoint: tensor name → the array, or where it lies."""

FLOATS = ("float32", "bfloat16", "float16", "float64")
EMBEDDING, HEAD = "embeddings/token/embedding", "embeddings/head/kernel"


class Wanted(NamedTuple):
    """One tensor that the params need.

    Attributes:
      path: of its leaf, which a tensor of each layer shares under `blocks/`.
      names: that it may have in a checkpoint, best first.
      source: where in the tensor it stands.
      shape: in the checkpoint.
    """

    path: str
    names: tuple[str, ...]
    source: Source
    shape: tuple[int, ...]

    def of(self, tensors: Collection[str]) -> str | None:
        """Its name in this checkpoint, None if it is not there."""
        return next((name for name in self.names if name in tensors), None)


def wanted(model_config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Wanted]:
    """Every tensor that a checkpoint of this shape must have.

    Args:
      model_config: the model's shape.
      shapes: of the params' leaves, by path.

    Yields:
      Leaf by leaf, in each the layers in order.
    """
    table = model_config.family.sources(model_config)
    base = _base(model_config)
    for path, source in table.items():
        stacked = path.startswith("blocks/")
        shape = source.stored(shapes[path][1:] if stacked else shapes[path])
        for i in range(model_config.layers if stacked else 1):
            name = source.name.format(layer=i)
            # Checkpoints saved from the bare model lack the first part of the name.
            names = (name, name.removeprefix(base))
            names += () if source.other is None else (source.other.format(layer=i),)
            if path == EMBEDDING and model_config.tied:
                # What is tied may be written down under either name.
                names += _head_names(model_config)
            yield Wanted(path, names, source, shape)


def settle_tie(
    model_config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Unties a model whose checkpoint has two different weights where the config wants one.

    That is what transformers 5 does; earlier versions used the embedding.

    Args:
      model_config: as config.json says.
      shapes: of the params' leaves, by path.
      tensors: of the checkpoint.

    Returns:
      The config that holds, and what is to be said.
    """
    if not model_config.tied or EMBEDDING not in shapes:
        return model_config, ()
    names = next(w.names for w in wanted(model_config, shapes) if w.path == EMBEDDING)
    embedding = next((n for n in names[:2] if n in tensors), None)
    head = next((n for n in names[2:] if n in tensors), None)
    if head is None:
        return model_config, ()
    if embedding is None:
        said = f"the checkpoint has no {names[0]}: {head}, which the config ties to it, is used"
        return model_config, (f"{said} for both, as transformers does",)
    one, other = tensors[embedding], tensors[head]
    # What is of another shape or dtype is not read: `match` refuses it.
    fit = all(e.shape == shapes[EMBEDDING] and str(e.dtype) in FLOATS for e in (one, other))
    if fit and np.array_equal(np.asarray(one), np.asarray(other)):
        return model_config, ()
    said = f"the config ties {head} to {embedding} but the two differ in the checkpoint"
    return dataclasses.replace(model_config, tied=False), (
        f"{said}: each is used for itself, as transformers 5 does (earlier versions used the "
        "embedding for both)",
    )


def match(
    model_config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> tuple[dict[str, list[tuple[str, Source]]], tuple[str, ...]]:
    """Finds the tensors of every leaf.

    Args:
      model_config: the model's shape.
      shapes: of the params' leaves, by path.
      tensors: of the checkpoint.

    Returns:
      Path of a leaf → name of its tensor and where in it the leaf stands, for each layer in order;
      and what is to be said.

    Raises:
      MgnpError: naming tensors that are missing, left over, or of another shape or dtype.
    """
    found: dict[str, list[tuple[str, Source]]] = {}
    for part in wanted(model_config, shapes):
        name = part.of(tensors)
        if name is None:
            raise MgnpError(_why_missing(model_config, shapes, tensors, part))
        _check(model_config, part, name, tensors[name])
        found.setdefault(part.path, []).append((name, part.source))
    used = {name for layers in found.values() for name, _ in layers}
    if model_config.tied:
        used |= set(_head_names(model_config))
    left = sorted(
        t for t in tensors if t not in used and not t.endswith(model_config.family.ignored)
    )
    return found, _left_over(model_config, left)


def _check(model_config: ModelConfig, part: Wanted, name: str, got: Stored | np.ndarray) -> None:
    if got.shape != part.shape:
        of_vocabulary = part.path in (EMBEDDING, HEAD)
        hint = f" (vocab_size {model_config.vocab_size})" if of_vocabulary else ""
        raise MgnpError(
            f"tensor {shown(name)} has shape {shown(got.shape)}, but config.json implies "
            f"{part.shape}{hint}; config.json and the weights belong to different models"
        )
    if str(got.dtype) not in FLOATS:
        raise MgnpError(
            f"tensor {shown(name)} is of dtype {got.dtype}, wanted one of {', '.join(FLOATS)}; "
            "quantised weights are not supported: use a checkpoint that is not, or dequantise it "
            "with the library that made it"
        )


def _why_missing(
    model_config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], tensors: Tensors, part: Wanted
) -> str:
    """What to say about a tensor that is not there."""
    some = f"the checkpoint's {len(tensors)} tensors ({_listed(sorted(tensors))})"
    for prefix in sorted(_prefixes(tensors, part.names), key=len):
        parts = itertools.islice(wanted(model_config, shapes), len(tensors) + 1)
        if all(any(prefix + name in tensors for name in p.names) for p in parts):
            return (
                f"{some} are those of this model with {shown(prefix)} before every name, as a "
                "wrapper (torch.compile, DataParallel) leaves it; save the model inside the "
                "wrapper, or take the prefix off the names in the file"
            )
    # Finitely many are there, so this ends however many layers a config asks for.
    first = itertools.islice(wanted(model_config, shapes), len(tensors) + 1)
    if not any(p.of(tensors) for p in first):
        return (
            f"{some} have none of the names of a {model_config.family.name} of transformers, "
            f"such as {part.names[0]!r}; wanted a checkpoint as transformers' save_pretrained "
            "writes it"
        )
    why = f"the checkpoint lacks the tensor {part.names[0]}, which config.json implies"
    if part.path == HEAD:
        why += "; if the model ties it to the embedding, config.json must say so "
        why += "(tie_word_embeddings true)"
    return f"{why}; found {_listed(sorted(tensors))}"


def _prefixes(tensors: Collection[str], names: Collection[str]) -> set[str]:
    """What stands before one of these names, wherever it ends the name of a tensor."""
    pairs = itertools.product(tensors, names)
    return {t.removesuffix(name) for t, name in pairs if t.endswith(f".{name}")}


def _left_over(model_config: ModelConfig, left: list[str]) -> tuple[str, ...]:
    """Refuses tensors of the model itself that nothing reads; says those of other heads."""
    base = _base(model_config)
    sources = model_config.family.sources(model_config).values()
    firsts = {s.name.removeprefix(base).split(".", 1)[0] for s in sources}
    firsts |= {base.removesuffix("."), *(n.split(".", 1)[0] for n in _head_names(model_config))}
    own = [name for name in left if name.split(".", 1)[0] in firsts]
    if own:
        raise MgnpError(
            f"the checkpoint has tensors that a {model_config.family.name} of this config.json "
            f"({model_config.layers} layers) does not use: {_listed(own)}; config.json and the "
            "weights belong to different models"
        )
    if not left:
        return ()
    return (f"tensors that no part of a language model reads are left out: {_listed(left)}",)


def _base(model_config: ModelConfig) -> str:
    """The first part of most tensors' names, with its dot."""
    embedding = model_config.family.sources(model_config).get(EMBEDDING)
    return embedding.name.split(".", 1)[0] + "." if embedding else ""


def _head_names(model_config: ModelConfig) -> tuple[str, ...]:
    untied = dataclasses.replace(model_config, tied=False)
    head = model_config.family.sources(untied).get(HEAD)
    return tuple(name for name in (head.name, head.other) if name) if head else ()


def _listed(names: list[str]) -> str:
    return ", ".join(shown(n) for n in names[:5]) + (" …" if len(names) > 5 else "")
