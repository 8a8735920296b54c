"""Curves of a ranking's circuits over their size, and the areas under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgnp_jax.types import MgnpError

KEEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes at which a ranking is measured: shares of what it ranks, as MIB has them."""


class Areas(NamedTuple):
    """What a curve comes to over its sizes, each the mean over the range of sizes.

    Attributes:
      cmd: of |1 − faithfulness|: how far from the model the circuits are; 0 at best.
      cpr: of faithfulness: more than 1 where circuits are better than the model.
      accuracy: of accuracy, a fraction.
    """

    cmd: float
    cpr: float
    accuracy: float


def faithfulness(score: float, empty: float, full: float) -> float:
    """How much of what the model gains over nothing kept a circuit gains.

    Args:
      score: the circuit's mean score.
      empty: the same with nothing kept.
      full: the same of the full model.

    Returns:
      0 as with nothing kept, 1 as the model, more beyond it; NaN where the model gains nothing.
    """
    return (score - empty) / (full - empty) if full != empty else math.nan


def mean_over(keeps: Sequence[float], values: Sequence[float]) -> float:
    """A curve's mean over its range of sizes: its area by trapezoids over the range's width.

    So a curve that is 1 everywhere has the area 1, wherever the grid of sizes begins.

    Args:
      keeps: increasing shares, at least two.
      values: at each.

    Raises:
      MgnpError: if the sizes do not increase, or are not as many as the values.
    """
    width = np.diff(np.asarray(keeps, np.float64))
    height = np.asarray(values, np.float64)
    if len(width) + 1 != len(height) or not len(width) or not (width > 0).all():
        raise MgnpError(
            f"an area wants two or more increasing sizes and a value for each, got sizes "
            f"{list(keeps)} and {len(height)} values"
        )
    return float(((height[1:] + height[:-1]) / 2 * width).sum() / width.sum())


def areas(keeps: Sequence[float], faithful: Sequence[float], accuracy: Sequence[float]) -> Areas:
    """CMD, CPR and accuracy's area of a curve; compare them over one grid of sizes alone.

    Args:
      keeps: increasing shares of what is ranked.
      faithful: faithfulness at each.
      accuracy: fraction at each.

    Raises:
      MgnpError: as `mean_over` does.
    """
    missing = [abs(1 - value) for value in faithful]
    return Areas(*(mean_over(keeps, values) for values in (missing, faithful, accuracy)))
