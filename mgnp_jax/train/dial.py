"""A size or a quality asked for instead of a price: prices follow it, one shift meets it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import binarise
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.train.config import DiscoverConfig
from mgnp_jax.types import Masks

GAIN = 0.5
"""By how much the price's logarithm follows the logarithm of what was missed."""

FARTHEST = 1.0
"""Most of it that counts at once: gates take steps to follow, and prices should not overshoot."""

ARRIVED = 0.7
"""Part of the steps after which the figure is wanted in full."""

TOLERANCE = 0.05
"""Relative error at which a figure is met; half of what is promised, for test prompts."""

MOST_TRIES = 12
"""Validations that each of the two shifts may take."""

WIDEST = 8.0
"""Log-alpha is shifted by at most this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dial:
    """What is asked for.

    Attributes:
      name: `keep`, the share of prunable parameters, or `max_kl`, nats on validation prompts.
      target: its value.
      model_config: the model's shape, by which parameters are counted.
    """

    name: Literal["keep", "max_kl"]
    target: float
    model_config: ModelConfig

    def value(self, masks: Masks, kl: float) -> float:
        """The figure of a circuit.

        Args:
          masks: binary gates by granularity.
          kl: of the circuit on validation prompts.
        """
        return prunable_share(self.model_config, masks) if self.name == "keep" else kl

    def excess(self, value: float) -> float:
        """How much larger a circuit is than it need be, as a logarithm; below 0 if smaller.

        Args:
          value: its figure.
        """
        over = math.log(max(value, 1e-9) / self.target)
        return over if self.name == "keep" else -over

    def met(self, value: float) -> bool:
        """Whether a figure is near enough to what was asked; a KL must not lie above it.

        Args:
          value: the figure.
        """
        over = value / self.target - 1
        return -2 * TOLERANCE <= over <= 0 if self.name == "max_kl" else abs(over) <= TOLERANCE

    def next_price(self, price: jax.Array, value: float, done: float) -> jax.Array:
        """Dual ascent on the logarithm of one price for all nodes.

        What is wanted of a training that is not over is on the way: from the whole model's
        parameters down to those asked for, from no KL up to the one that is allowed.

        Args:
          price: [] float32, so far.
          value: the figure of the binary circuit that it led to.
          done: part of the steps, in (0, 1].

        Returns:
          [] float32.
        """
        way = min(done / ARRIVED, 1.0)
        ahead = (1 - way) * math.log(self.target) if self.name == "keep" else math.log(way)
        missed = min(max(self.excess(value) + ahead, -FARTHEST), FARTHEST)
        return jnp.asarray(np.asarray(price) * np.float32(math.exp(GAIN * missed)))

    def settle(
        self,
        log_alpha: Masks,
        trained: Sequence[str],
        hold: Callable[[Masks, Masks], Masks],
        measure: Callable[[Masks], dict[str, Any]],
    ) -> tuple[Masks, Masks, dict[str, Any]]:
        """Shifts all gates together until the figure is met, by bisection.

        The order in which training would give nodes up stays as it is; where it stops is moved.
        Where one head or block makes the figure jump over what was asked, it is kept, and only
        the finer gates are shifted on.

        Args:
          log_alpha: float arrays by granularity.
          trained: granularities whose gates may move.
          hold: undoes a shift (new, old) where a gate must not move.
          measure: metrics of a binary circuit on validation prompts.

        Returns:
          The shifted log-alpha, its circuit, and the circuit's metrics with what was asked for
          and reached under `dial`; the nearest circuit if none met it.
        """
        nearest: tuple[float, Masks, Masks, dict[str, Any]] | None = None
        start = log_alpha
        for names, low, high, shift in (
            (GRANULARITIES, -WIDEST, WIDEST, 0.0),
            (NEURONS, -WIDEST, 0.0, -WIDEST / 2),
        ):
            names = [name for name in names if name in trained]
            if not names:
                continue
            larger = None
            for _ in range(MOST_TRIES):
                moved = {n: a + shift if n in names else a for n, a in start.items()}
                moved = hold(moved, log_alpha)
                masks = binarise(moved)
                measured = measure(masks)
                value = self.value(masks, measured["kl"])
                excess = self.excess(value)
                # Any circuit that is good enough comes before one that is not.
                far = abs(excess) + (1e3 if self.name == "max_kl" and excess < 0 else 0)
                if nearest is None or far < nearest[0]:
                    dial = {self.name: self.target, "reached": value}
                    nearest = far, moved, masks, measured | {"dial": dial}
                if self.met(value):
                    return nearest[1:]
                # A shift upwards opens gates.
                if excess > 0:
                    high, larger = shift, moved
                else:
                    low = shift
                shift = (low + high) / 2
            if larger is None:
                break
            start = larger
        assert nearest is not None
        return nearest[1:]


def dial_of(config: DiscoverConfig, model_config: ModelConfig) -> Dial | None:
    """The dial that settings ask for; None if prices stay as they are.

    Args:
      config: `keep` or `max_kl`.
      model_config: the model's shape.
    """
    for name in ("keep", "max_kl"):
        if (target := getattr(config, name)) is not None:
            return Dial(name=name, target=target, model_config=model_config)
    return None
