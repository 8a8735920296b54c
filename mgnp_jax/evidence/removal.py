"""What a circuit of nodes loses with each of its nodes: to first order; and which nodes to try."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.evidence.chunks import figures
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.compaction import Compaction, compacted, plan_for, what_stays
from mgnp_jax.passes.narrowed_runs import narrowed_runs
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.segment_plan import full_cost
from mgnp_jax.types import Masks, Params

SEGMENTS = 2
"""Groups of layers of what is left of the model; each is compiled in every pass."""

WORTH_WHILE = 0.8
"""Share of the model's multiply-adds below which the circuit is run without the rest."""


class Smaller(NamedTuple):
    """A circuit as it is run.

    Attributes:
      masks: float32 gates by granularity.
      compaction: what is left of the model; None for all of it.
    """

    masks: Masks
    compaction: Compaction | None

    def of(self, model_config: ModelConfig, runs: CachedRuns) -> CachedRuns:
        """Prompts with the values of what is left.

        Args:
          model_config: the model's shape.
          runs: of the whole model.
        """
        if self.compaction is None:
            return runs
        return narrowed_runs(model_config, self.compaction, runs)


def smaller(model: Model, masks: Masks) -> Smaller:
    """A circuit without what it does not use of the model, if that is much.

    Args:
      model: the model.
      masks: bool arrays by granularity, consistent with the hierarchy.
    """
    c = model.config
    gates = {name: jnp.asarray(mask, jnp.float32) for name, mask in masks.items()}
    left = what_stays({name: np.asarray(masks[name], bool) for name in NEURONS})
    chosen = plan_for(c, left, SEGMENTS)
    if chosen.cost > WORTH_WHILE * full_cost(c):
        return Smaller(gates, None)
    return Smaller(gates, compacted(c, model.params, chosen, left))


@functools.partial(jax.jit, static_argnums=0)
@exact
def first_order(
    model_config: ModelConfig,
    params: Params,
    circuit: Smaller,
    runs: CachedRuns,
    weights: jax.Array,
) -> Masks:
    """What figures change by if nodes leave, by their gradients in the gates.

    Args:
      model_config: the model's shape.
      params: its weights.
      circuit: that nodes leave.
      runs: B prompts, of what is left of the model.
      weights: [B] of the prompts.

    Returns:
      [2, …] by granularity, summed over prompts.
    """

    def summed(masks: Masks) -> jax.Array:
        logits = circuit_logits(model_config, params, masks, runs, circuit.compaction)
        return (figures(logits, runs) * weights[None]).sum(1)

    _, pull = jax.vjp(summed, circuit.masks)
    (gradients,) = jax.vmap(pull)(jnp.eye(2, dtype=jnp.float32))
    return {name: -gradients[name] for name in GRANULARITIES}


class Nodes(NamedTuple):
    """Nodes of one layer that go together.

    Attributes:
      layer: theirs.
      names: of their granularities.
      places: their indices.
      size: J, as many or more; the others only fill up.
    """

    layer: int
    names: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    size: int

    def filled(self, each: list[Any]) -> list[Any]:
        """One thing for each of J nodes.

        Args:
          each: for each that there is.
        """
        return each + each[:1] * (self.size - len(each))


def without(masks: dict[str, np.ndarray], nodes: Nodes) -> list[dict[str, np.ndarray]]:
    """Gates of a circuit without each of some nodes.

    Args:
      masks: of the circuit, NumPy.
      nodes: J of them.
    """
    found = []
    for name, place in zip(nodes.names, nodes.places, strict=True):
        closed = masks[name].copy()
        closed[place] = 0
        found.append({**masks, name: closed})
    return nodes.filled(found)


def together(chosen: dict[str, np.ndarray], size: int) -> Iterator[Nodes]:
    """Nodes layer by layer, as many at a time as go together.

    Args:
      chosen: bool arrays by granularity.
      size: J.
    """
    found: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for name in GRANULARITIES:
        for place in map(tuple, np.argwhere(chosen.get(name, False)).tolist()):
            found.setdefault(place[0], []).append((name, place))
    for layer, nodes in sorted(found.items()):
        for start in range(0, len(nodes), size):
            names, places = zip(*nodes[start : start + size])
            yield Nodes(layer, names, places, size)


def strongest(effects: dict[str, np.ndarray], names: Sequence[str], count: int) -> dict:
    """The nodes of largest effect, whatever its sign.

    Args:
      effects: float by granularity; NaN for nodes that are not to be chosen.
      names: granularities to choose from.
      count: how many at most.

    Returns:
      Bool arrays by granularity.
    """
    sizes = {name: np.nan_to_num(np.abs(effects[name]), nan=-1.0) for name in names}
    flat = np.concatenate([size.ravel() for size in sizes.values()])
    chosen = np.zeros(flat.size, bool)
    chosen[np.argsort(-flat, kind="stable")[:count]] = True
    chosen &= flat >= 0
    parts = np.split(chosen, np.cumsum([size.size for size in sizes.values()])[:-1])
    return {n: part.reshape(effects[n].shape) for n, part in zip(names, parts, strict=True)}
