"""Circuits beside which a found one means something: random, and what it leaves out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

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
    attention = rng.permutation(len(kept["attention_blocks"]))
    mlp = rng.permutation(len(kept["mlp_blocks"]))
    heads = kept["attention_heads"][attention]
    which = rng.permuted(np.tile(np.arange(heads.shape[1]), (len(heads), 1)), axis=1)
    neurons = np.take_along_axis(kept["attention_neurons"][attention], which[..., None], 1)
    moved = {
        "attention_blocks": kept["attention_blocks"][attention],
        "attention_heads": np.take_along_axis(heads, which, 1),
        "attention_neurons": rng.permuted(neurons, axis=2),
        "mlp_blocks": kept["mlp_blocks"][mlp],
        "mlp_hidden": rng.permuted(kept["mlp_hidden"][mlp], axis=1),
        "mlp_output": rng.permuted(kept["mlp_output"][mlp], axis=1),
    }
    return jax.device_put({name: moved.get(name, kept[name]) for name in kept})


def complement(masks: Masks) -> Masks:
    """The neurons that a circuit leaves out, with the heads and blocks that carry them.

    Args:
      masks: bool arrays by granularity, consistent with the hierarchy.

    Returns:
      Bool arrays by granularity; the embedding's as it is.
    """
    kept = {name: np.asarray(mask) for name, mask in masks.items()}
    neurons = ~kept["attention_neurons"]
    hidden, output = ~kept["mlp_hidden"], ~kept["mlp_output"]
    heads = neurons.any(-1)
    # What an MLP writes passes an output neuron; one of which all are kept has no complement.
    mlp = np.asarray(hidden.any(-1) & output.any(-1))
    left = {
        "attention_blocks": heads.any(-1),
        "attention_heads": heads,
        "attention_neurons": neurons,
        "mlp_blocks": mlp,
        "mlp_hidden": hidden & mlp[:, None],
        "mlp_output": output & mlp[:, None],
    }
    return jax.device_put({name: left.get(name, kept[name]) for name in kept})


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
