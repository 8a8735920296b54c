"""What validation corrects as training goes: the score aimed at, and the scale of prices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.target import Target
from mgnp_jax.types import Record


@struct.dataclass
class Controller:
    """What validation corrects.

    Attributes:
      score_correction: [] float32, by what part of itself the score aimed at on training prompts
        exceeds the full model's.
      price: [] float32, scale of all prices.
    """

    score_correction: jax.Array
    price: jax.Array


def first_controller(config: Settings) -> Controller:
    """Where it starts: the full model's own score, prices as they are set.

    Args:
      config: their scale.
    """
    return Controller(
        score_correction=jnp.zeros((), jnp.float32), price=jnp.asarray(config.penalty, jnp.float32)
    )


def next_controller(
    config: Settings,
    target: Target | None,
    controller: Controller,
    validation: Record,
    done: float,
) -> Controller:
    """Corrects what the last validation missed.

    A circuit scores lower on prompts that did not choose its gates. How much lower is one
    number, and the validation prompts tell it.

    Args:
      config: gain and clip of the correction.
      target: the size or quality that prices follow; None if they stay as they are.
      controller: so far.
      validation: metrics of the binary circuit, with its `prunable_kept`.
      done: part of the steps, in (0, 1].
    """
    base = validation["base_score"]
    missed = (base - validation["score"]) / max(abs(base), 1e-6)
    corrected = np.asarray(controller.score_correction) + np.float32(config.score_gain * missed)
    correction = jnp.asarray(np.clip(corrected, -config.score_clip, config.score_clip))
    price = controller.price
    if target is not None:
        price = target.next_price(price, target.value(validation), done)
    return Controller(score_correction=correction, price=price)
