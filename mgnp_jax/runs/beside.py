"""Circuits beside a reference: at its sizes, along their own ranking, and how large each is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import edge_count, existing
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS
from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.metrics.curves import KEEPS, faithfulness
from mgnp_jax.metrics.evaluate import evaluate_all
from mgnp_jax.metrics.sizes import circuit_sizes, prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.types import Batch, Masks

OWN, EDGES, PARAMETERS = "own", "edges", "parameters"
"""What a circuit has as many of as the reference's; or the size at which it was found."""

SIZES: dict[str, Callable[[ModelConfig, Masks], float]] = {
    EDGES: lambda c, masks: edge_count(level_of(masks).edges(c, masks)),
    PARAMETERS: lambda c, masks: prunable_share(c, level_of(masks).nodes(c, masks)),
}
"""How large a circuit of either level is: edges between what is kept, and the share of the prunable
parameters that is within the nodes which are kept or gone through."""


def ranks_all(model_config: ModelConfig, circuit: Circuit) -> bool:
    """Whether a ranking is of everything that its level has.

    One of some edges alone, as between the nodes of another circuit, has other shares and at most
    that circuit's edges.

    Args:
      model_config: the model's shape.
      circuit: of either level.
    """
    if circuit.scores is None:
        return False
    if level_of(circuit.masks) is not EDGE:
        return True
    there = existing(model_config)
    return all(np.isfinite(np.asarray(circuit.scores[name])[e]).all() for name, e in there.items())


def at_sizes_of(model: Model, circuit: Circuit, reference: Circuit) -> dict[str, Circuit]:
    """The largest circuits of a ranking that are no larger than another circuit.

    Args:
      model: of both.
      circuit: with scores.
      reference: of either level.

    Returns:
      One for each of `SIZES`; of nodes, the smallest there is where none is as small.
    """
    found = {}
    for name, size in SIZES.items():
        most = size(model.config, reference.masks)
        found[name] = circuit.within(
            lambda masks, size=size, most=most: size(model.config, masks) <= most, {name: most}
        )
    return found


def sized(
    model: Model,
    circuit: Circuit,
    reference: Circuit,
    figures: Mapping[str, Any],
    empty: Mapping[str, Any],
) -> dict[str, Any]:
    """A circuit's sizes and figures, and whether it is no larger than the reference.

    Args:
      model: of both circuits.
      circuit: of either level.
      reference: of either level.
      figures: as `evaluate` returned them for the circuit.
      empty: the same with nothing kept.

    Returns:
      A row of comparison.json, without what is known of the method.
    """
    sizes = circuit_sizes(model.config, circuit.masks)
    nodes = level_of(circuit.masks).nodes(model.config, circuit.masks)
    own, most = (
        {name: size(model.config, masks) for name, size in SIZES.items()}
        for masks in (circuit.masks, reference.masks)
    )
    return {
        "edge_sparsity": sizes["edges"]["sparsity"],
        "prunable_kept": sizes["parameters"]["prunable_kept"],
        **{name: figures[name] for name in ("kl", "score", "accuracy")},
        "heads": sizes["sizes"][ATTENTION_HEADS]["active"],
        "edges": sizes["edges"]["active"],
        "base_score": figures["base_score"],
        "base_accuracy": figures["base_accuracy"],
        "faithfulness": faithfulness(figures["score"], empty["score"], figures["base_score"]),
        "heads_by_layer": np.asarray(nodes[ATTENTION_HEADS]).sum(-1).tolist(),
        "mlps": np.asarray(nodes[MLP_BLOCKS]).astype(int).tolist(),
        "within": {name: own[name] <= most[name] for name in SIZES},
    }


def emptied(model_config: ModelConfig, circuit: Circuit) -> Circuit:
    """The same circuit with nothing kept.

    Args:
      model_config: the model's shape.
      circuit: of either level.
    """
    masks = level_of(circuit.masks).full(model_config, 0.0, circuit.masks)
    return dataclasses.replace(circuit, masks=masks)


def curve_of(
    model: Model, circuit: Circuit, reference: Circuit, some: Batch
) -> list[dict[str, Any]]:
    """A ranking's circuits of every size.

    Args:
      model: of all circuits.
      circuit: with scores.
      reference: whose sizes the circuits are put beside.
      some: prompts to measure on.

    Returns:
      As `rows_of` has them.
    """
    every = every_size(model.config, circuit)
    return rows_of(model, every, reference, evaluate_all(model, every, some))


def every_size(model_config: ModelConfig, circuit: Circuit) -> dict[str, Circuit]:
    """What a curve is measured of.

    Args:
      model_config: the model's shape.
      circuit: with scores.

    Returns:
      The circuit with nothing kept, as `empty`, and one for each of `KEEPS`.
    """
    each = {f"{keep:g}": circuit.at(keep=keep) for keep in KEEPS}
    return {"empty": emptied(model_config, circuit), **each}


def rows_of(
    model: Model,
    every: Mapping[str, Circuit],
    reference: Circuit,
    figures: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """A curve, size by size.

    Args:
      model: of all circuits.
      every: by `every_size`.
      reference: whose sizes the circuits are put beside.
      figures: as `evaluate` returns them, by the names of circuits.

    Returns:
      Rows of curves.csv, one for each of `KEEPS`, without what is known of the method.
    """
    wanted = ("edge_sparsity", "prunable_kept", "heads")
    wanted += ("kl", "score", "accuracy", "faithfulness")
    rows = []
    for keep in KEEPS:
        name = f"{keep:g}"
        row = sized(model, every[name], reference, figures[name], figures["empty"])
        rows.append({"keep": keep, **{n: row[n] for n in wanted}})
    return rows
