"""What a binary circuit is worth on the validation prompts."""

from __future__ import annotations

from typing import Any

import jax

from mgnp_jax.train import losses, schedule
from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.types import Masks

Record = dict[str, Any]

OFF_WEIGHT = 5.0
"""Of the relative error of the mean score, which swings from one validation to the next: one per
cent counts as much as a head at its default price."""


def binary_objective(config: DiscoverConfig, masks: Masks, measured: Record, price: float) -> float:
    """Equation 7 of a binary circuit on the validation split, and how far its mean score is off.

    The circuit with the least is kept. Softened answers have no part in it: a circuit is chosen
    by the figures it is reported with.

    Args:
      config: loss weights.
      masks: bool arrays by granularity.
      measured: its metrics.
      price: scale of all prices.
    """
    terms = {
        "kl": measured["kl"],
        "score_gap": measured["score_gap"],
        "penalty": losses.penalty(
            {name: mask.mean() for name, mask in masks.items()},
            {name: mask.size for name, mask in masks.items()},
            config.penalties,
        ),
    }
    off = abs(measured["score"] - measured["base_score"]) / max(abs(measured["base_score"]), 1e-6)
    return float(losses.total(config, terms, price)) + OFF_WEIGHT * off


def validated(
    config: DiscoverConfig, step: int, masks: Masks, measured: Record, aim: schedule.Aim
) -> Record:
    """What is recorded of a validation.

    Args:
      config: loss weights.
      step: after how many steps.
      masks: bool arrays by granularity.
      measured: the circuit's metrics.
      aim: that led to it.
    """
    counted = jax.device_get(masks)
    price = float(aim.price)
    return {
        "step": step,
        **measured,
        "objective": binary_objective(config, counted, measured, price),
        "kept": {name: float(mask.mean()) for name, mask in counted.items()},
        "lift": float(aim.lift),
        "price": price,
    }
