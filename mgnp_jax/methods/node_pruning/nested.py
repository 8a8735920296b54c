"""Every prompt its own price: one log-alpha stands for the circuits of all prices.

A node is open at price c where log α − κ·log c is above the threshold, so the price up to which it
is kept is a number of its own, and circuits of higher prices lie within those of lower ones. What a
prompt's circuit loses counts divided by its price: that is equation 7, in units of its penalty.
"""

from __future__ import annotations

import math
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


class Prices(NamedTuple):
    """What the prompts of a step pay.

    Attributes:
      shift: [B] what is taken from log-alpha.
      weight: [B] of what a prompt's circuit loses: one over its price.
    """

    shift: jax.Array
    weight: jax.Array


def draw_prices(key: jax.Array, nesting: Nesting, prompts: int) -> Prices:
    """Prices log-uniform in their range, one in each of as many equal parts as there are prompts.

    Args:
      key: [] typed key; consumed.
      nesting: the range.
      prompts: B.
    """
    low, high = math.log(nesting.least), math.log(nesting.most)
    order, offset = jax.random.split(key)
    place = jax.random.permutation(order, prompts) + jax.random.uniform(offset, (prompts,))
    logs = low + (high - low) * place / prompts
    return Prices(shift=nesting.slope * logs, weight=jnp.exp(-logs))


def circuit_of(config: Settings, log_alpha: Masks) -> Masks:
    """The binary circuit by now; of a nested run, that of the price `penalty`.

    Args:
      config: whether there is a price a prompt, and the price.
      log_alpha: float arrays by granularity.
    """
    if config.nested:
        shift = jnp.float32(config.nesting.slope * math.log(config.penalty))
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

    Args:
      scores: the ranking it is of, by `log_price_of`.
      masks: bool arrays by granularity.
    """
    kept = [np.asarray(scores[name])[np.asarray(mask)] for name, mask in masks.items()]
    return jnp.exp(jnp.float32(min((part.min() for part in kept if part.size), default=np.inf)))
