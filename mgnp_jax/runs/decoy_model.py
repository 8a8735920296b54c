"""A model widened with nodes that are active and cannot matter.

Heads, MLP neurons and whole layers that differ between the streams, but write along the all-ones
direction of the residual stream, which every LayerNorm takes out. The model's logits are the same,
and no circuit needs any of them.

That holds while all dimensions that an MLP writes are open: where some are closed, what a decoy
neuron of that MLP writes is no longer the same in all. So decoys write little.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_HIDDEN,
    mask_shapes,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.types import MgnpError

Weights = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Widened:
    """A model with decoys.

    Attributes:
      model: the same function as the original's.
      real: [L] indices of the original layers.
      decoys: bool arrays by granularity; True is a decoy.
    """

    model: Model
    real: np.ndarray
    decoys: dict[str, np.ndarray]


def with_decoys(
    model: Model, *, heads: int, hidden: int, layers: int, written: float, seed: int
) -> Widened:
    """Adds nodes that are active and cannot matter.

    Args:
      model: one whose norms all take the mean out, with one projection for q, k and v, a plain MLP
        and biases.
      heads: decoy heads in each layer.
      hidden: decoy MLP neurons in each layer.
      layers: decoy layers, one after each of the first so many.
      written: size of their output weights over that of the other nodes'.
      seed: of their random weights.

    Raises:
      MgnpError: for a model of another kind, or more decoy layers than it has layers.
    """
    c = model.config
    if layers > c.layers:
        raise MgnpError(
            f"decoy layers must be at most {c.layers}, as {model.name} has, got {layers}"
        )
    if c.norm != "layer" or not c.fused_qkv or c.gated_mlp or not c.mlp_bias or c.norm_after:
        raise MgnpError(
            f"decoys need LayerNorm, which takes out what all dimensions share, and blocks like "
            f"GPT-2's; {model.name} is of the family {c.family.name}"
        )
    draw = _Draw(np.random.default_rng(seed), np.float32(written))
    old = jax.device_get(model.params["blocks"])
    is_real = np.concatenate([[True, False] if i < layers else [True] for i in range(c.layers)])
    wide = dataclasses.replace(
        c,
        layers=len(is_real),
        heads=c.heads + heads,
        kv_heads=c.heads + heads,
        mlp_width=c.mlp_width + hidden,
    )
    each = []
    for source, real in zip(np.cumsum(is_real) - 1, is_real, strict=True):
        now = jax.tree.map(lambda leaf, i=int(source): leaf[i], old)
        each.append(_widened(draw, c, now, heads, hidden) if real else _decoy(draw, wide, now))
    blocks = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)
    return Widened(
        model=dataclasses.replace(
            model,
            name=f"{model.name}+decoys",
            config=wide,
            params={**model.params, "blocks": blocks},
        ),
        real=np.flatnonzero(is_real),
        decoys=_decoys_of(c, wide, is_real),
    )


def _decoys_of(
    model_config: ModelConfig, wide: ModelConfig, is_real: np.ndarray
) -> dict[str, np.ndarray]:
    """Which nodes of the widened model are decoys, by granularity."""
    decoys = {name: np.zeros(s, bool) for name, s in mask_shapes(wide).items()}
    for mask in decoys.values():
        mask[~is_real] = True
    for name in (ATTENTION_HEADS, ATTENTION_NEURONS):
        decoys[name][:, model_config.heads :] = True
    decoys[MLP_HIDDEN][:, model_config.mlp_width :] = True
    return decoys


@dataclasses.dataclass(frozen=True)
class _Draw:
    """Random weights of decoys."""

    rng: np.random.Generator
    written: np.float32

    def like(self, leaf: np.ndarray, *shape: int) -> np.ndarray:
        """Weights as large as others."""
        return (leaf.std() * self.rng.standard_normal(shape)).astype(np.float32)

    def along_ones(self, leaf: np.ndarray, rows: int) -> np.ndarray:
        """Output weights that are the same in all dimensions, smaller than others."""
        width = leaf.shape[-1]
        return self.written * self.like(leaf, rows, 1) * np.ones((1, width), np.float32)


def _more(
    draw: _Draw, model_config: ModelConfig, now: Weights, heads: int, hidden: int
) -> tuple[list[np.ndarray], Weights]:
    """Three projections to decoy heads, and the layer's other weights, of decoys alone."""
    d, e = model_config.width, heads * model_config.head_width
    attention, mlp = now["attention"], now["mlp"]
    parts = [draw.like(part, d, e) for part in np.split(attention["qkv"]["kernel"], 3, 1)]
    up = draw.like(mlp["up"]["kernel"], d, hidden)
    rows = draw.along_ones(attention["o"]["kernel"], e)
    down = draw.along_ones(mlp["down"]["kernel"], hidden)
    return parts, {
        "o": {"kernel": rows, "bias": np.zeros(d, np.float32)},
        "up": {"kernel": up, "bias": np.zeros(hidden, np.float32)},
        "down": {"kernel": down, "bias": np.zeros(d, np.float32)},
    }


def _decoy(draw: _Draw, wide: ModelConfig, now: Weights) -> Weights:
    """A whole layer of decoys."""
    parts, more = _more(draw, wide, now, wide.heads, wide.mlp_width)
    kernel = np.concatenate(parts, 1)
    qkv = {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)}
    attention = {"qkv": qkv, "o": more.pop("o")}
    return {**now, "attention": attention, "mlp": more}


def _widened(
    draw: _Draw, model_config: ModelConfig, now: Weights, heads: int, hidden: int
) -> Weights:
    """A layer with decoys beside its own nodes."""
    parts, more = _more(draw, model_config, now, heads, hidden)
    attention, mlp = now["attention"], now["mlp"]
    old = zip(np.split(attention["qkv"]["kernel"], 3, 1), parts, strict=True)
    biases = [
        np.concatenate([bias, np.zeros(part.shape[1], np.float32)])
        for bias, part in zip(np.split(attention["qkv"]["bias"], 3), parts, strict=True)
    ]
    kernel = np.concatenate([np.concatenate(pair, 1) for pair in old], 1)

    def rows(own: Weights, added: Weights) -> Weights:
        return {"kernel": np.concatenate([own["kernel"], added["kernel"]]), "bias": own["bias"]}

    return {
        **now,
        "attention": {
            "qkv": {"kernel": kernel, "bias": np.concatenate(biases)},
            "o": rows(attention["o"], more["o"]),
        },
        "mlp": {
            "up": jax.tree.map(lambda a, b: np.concatenate([a, b], -1), mlp["up"], more["up"]),
            "down": rows(mlp["down"], more["down"]),
        },
    }
