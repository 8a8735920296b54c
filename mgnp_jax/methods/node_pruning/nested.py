"""Every prompt its own price: one log-alpha stands for the circuits of all prices.

A node is open at price c where log α − κ·log c is above the threshold, so the price up to which it
is kept is a number of its own, and circuits of higher prices lie within those of lower ones. What a
prompt's circuit loses counts divided by its price: that is equation 7, in units of its penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import binarise
from mgnp_jax.masks.hard_concrete import THRESHOLD
from mgnp_jax.masks.ranking import all_the_way
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.prices import Nesting
from mgnp_jax.types import Masks

PRICES = 1 << 20
"""Folded into a step's key; no number that gates' keys are split into."""


HIGHEST = 80.0
"""Logarithm of the highest price: products with it are still numbers in float32."""


class Prices(NamedTuple):
    """What the prompts of a step pay.

    Attributes:
      shift: [B] what is taken from log-alpha.
      weight: [B] of what a prompt's circuit loses: one over its price.
    """

    shift: jax.Array
    weight: jax.Array


def draw_prices(
    key: jax.Array, nesting: Nesting, prompts: int, step: jax.Array | int = 0, votes: int = 1
) -> Prices:
    """Prices log-uniform in a band, one in each of as many equal parts as there are prompts.

    Args:
      key: [] typed key; consumed.
      nesting: the range, and its bands.
      prompts: B.
      step: [] int, from 0; steps go through the bands in turn.
      votes: of how many trainings, each of which has the whole band.
    """
    if votes > 1:
        each = jax.vmap(lambda k: draw_prices(k, nesting, prompts // votes, step))
        return jax.tree.map(jnp.ravel, each(jax.random.split(key, votes)))
    low, high = nesting.log_range
    if nesting.bands > 1:
        width = (high - low) / nesting.bands
        low += width * (step % nesting.bands)
        high = low + width
    order, offset = jax.random.split(key)
    place = jax.random.permutation(order, prompts) + jax.random.uniform(offset, (prompts,))
    logs = low + (high - low) * place / prompts
    return Prices(shift=nesting.slope * logs, weight=jnp.exp(-logs))


def mean_of_votes(config: Settings, log_alpha: Masks) -> Masks:
    """One log-alpha for several trainings side by side.

    Args:
      config: how many.
      log_alpha: float arrays by granularity, of each training if there are several.
    """
    if config.votes == 1:
        return log_alpha
    return jax.tree.map(lambda leaf: leaf.mean(0), log_alpha)


def kept_by(
    config: Settings, log_alpha: Masks, chosen: Callable[[Masks, Masks], Masks]
) -> dict[str, Any]:
    """How often each node is in the circuits of several trainings' own rankings.

    Args:
      config: how many, and their slope.
      log_alpha: [votes, L, …] by granularity.
      chosen: the circuit that is chosen of a ranking and its log-alpha.

    Returns:
      Float32 shares of the trainings by granularity.
    """
    each = [jax.tree.map(lambda leaf, k=k: leaf[k], log_alpha) for k in range(config.votes)]
    found = [jax.device_get(chosen(log_price_of(config, own), own)) for own in each]
    return {n: np.mean([masks[n] for masks in found], 0, np.float32) for n in found[0]}


def kept_price(config: Settings) -> float:
    """The price whose circuit is looked at on the way: `penalty`, or the nearest of a ranking.

    They differ where a size is asked for, and `penalty` is not: what no price of the ranking keeps
    may be left out by then.

    Args:
      config: price, and range of prices.
    """
    if not config.nested:
        return config.penalty
    return min(max(config.penalty, config.nesting.least), config.nesting.most)


def circuit_of(config: Settings, log_alpha: Masks) -> Masks:
    """The binary circuit by now; of a nested run, that of its `kept_price`.

    Args:
      config: whether there is a price a prompt, and the price.
      log_alpha: float arrays by granularity, of each training if there are several.
    """
    log_alpha = mean_of_votes(config, log_alpha)
    if config.nested:
        shift = jnp.float32(config.nesting.slope * math.log(kept_price(config)))
        log_alpha = jax.tree.map(lambda leaf: leaf - shift, log_alpha)
    return binarise(log_alpha)


def log_price_of(config: Settings, log_alpha: Masks) -> dict[str, Any]:
    """The ranking: up to which price each node is kept, and all that contains it.

    Args:
      config: slope.
      log_alpha: float arrays by granularity.

    Returns:
      Float32 by granularity, logarithms of prices; no child has more than what contains it.
    """
    host = jax.device_get(log_alpha)
    own = {name: (leaf - THRESHOLD) / config.nesting.slope for name, leaf in host.items()}
    return all_the_way(own)


def price_of(scores: Masks, masks: Masks) -> jax.Array:
    """The highest price that a circuit is kept at, [] float32.

    One of few heads beside another size, and one that ends among nodes of one number, is kept at
    none: then that of what it keeps at the lowest.

    Args:
      scores: the ranking it is of, by `log_price_of`.
      masks: bool arrays by granularity.
    """
    kept = [np.asarray(scores[name])[np.asarray(mask)] for name, mask in masks.items()]
    lowest = min((part.min() for part in kept if part.size), default=np.inf)
    return jnp.exp(jnp.float32(min(lowest, HIGHEST)))
