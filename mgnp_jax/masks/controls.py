"""Circuits beside which a found one means something, and how much two have in common."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.edges import existing
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks


def shuffled(key: jax.Array, masks: Masks) -> Masks:
    """A random circuit with exactly as many nodes of every granularity.

    Layers change places, attention and MLP apart, then heads within a layer and neurons
    within a head or an MLP; so blocks keep their heads and heads their neurons.

    Args:
      key: [] typed key; consumed.
      masks: bool arrays by granularity, consistent with the hierarchy.

    Returns:
      Bool arrays by granularity; the embedding's as it is.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    kept = {name: np.asarray(mask) for name, mask in masks.items()}
    attention = rng.permutation(len(kept[ATTENTION_BLOCKS]))
    mlp = rng.permutation(len(kept[MLP_BLOCKS]))
    heads = kept[ATTENTION_HEADS][attention]
    which = rng.permuted(np.tile(np.arange(heads.shape[1]), (len(heads), 1)), axis=1)
    neurons = np.take_along_axis(kept[ATTENTION_NEURONS][attention], which[..., None], 1)
    moved = {
        ATTENTION_BLOCKS: kept[ATTENTION_BLOCKS][attention],
        ATTENTION_HEADS: np.take_along_axis(heads, which, 1),
        ATTENTION_NEURONS: rng.permuted(neurons, axis=2),
        MLP_BLOCKS: kept[MLP_BLOCKS][mlp],
        MLP_HIDDEN: rng.permuted(kept[MLP_HIDDEN][mlp], axis=1),
        MLP_OUTPUT: rng.permuted(kept[MLP_OUTPUT][mlp], axis=1),
    }
    return jax.device_put({name: moved.get(name, kept[name]) for name in kept})


def random_edges(key: jax.Array, model_config: ModelConfig, masks: Masks) -> Masks:
    """A random circuit with exactly as many edges into every kind of reader.

    Args:
      key: [] typed key; consumed.
      model_config: the model's shape.
      masks: bool arrays by kind of reader.

    Returns:
      Bool arrays by kind of reader.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    moved = {}
    for name, there in existing(model_config).items():
        moved[name] = np.zeros_like(there)
        moved[name][there] = rng.permutation(np.asarray(masks[name])[there])
    return jax.device_put(moved)


def jaccard(a: Masks, b: Masks) -> dict[str, float]:
    """Overlap of two circuits: nodes in both over nodes in either.

    Args:
      a: bool arrays by granularity.
      b: the same of another circuit of the same model.

    Returns:
      Fractions by granularity; 1.0 where neither keeps any.
    """

    def one(x: Any, y: Any) -> float:
        x, y = np.asarray(x), np.asarray(y)
        either = (x | y).sum()
        return float((x & y).sum() / either) if either else 1.0

    return {name: one(a[name], b[name]) for name in a if name in b}
