"""A size or a quality asked for instead of a price: prices follow it, one shift meets it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.masks.circuit import binarise
from mgnp_jax.masks.granularities import GRANULARITIES, NEURONS
from mgnp_jax.masks.ranking import above, distinct, largest_above
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.prices import TargetConfig
from mgnp_jax.types import Masks, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked for.

    Attributes:
      name: `keep`, the share of prunable parameters, or `max_kl`, nats on validation prompts.
      wanted: its value.
      config: how it is met.
    """

    name: Literal["keep", "max_kl"]
    wanted: float
    config: TargetConfig

    def value(self, validation: Record) -> float:
        """The figure of a circuit.

        Args:
          validation: its metrics, with `prunable_kept`.
        """
        return validation["prunable_kept" if self.name == "keep" else "kl"]

    def excess(self, value: float) -> float:
        """How much larger a circuit is than it need be, as a logarithm; below 0 if smaller.

        Args:
          value: its figure.
        """
        over = math.log(max(value, 1e-9) / self.wanted)
        return over if self.name == "keep" else -over

    def met(self, value: float) -> bool:
        """Whether a figure is near enough to what was asked; a KL must not lie above it.

        Args:
          value: the figure.
        """
        over, near = value / self.wanted - 1, self.config.tolerance
        return -2 * near <= over <= 0 if self.name == "max_kl" else abs(over) <= near

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
        way = min(done / self.config.arrived, 1.0)
        ahead = (1 - way) * math.log(self.wanted) if self.name == "keep" else math.log(way)
        farthest = self.config.farthest
        missed = min(max(self.excess(value) + ahead, -farthest), farthest)
        return jnp.asarray(np.asarray(price) * np.float32(math.exp(self.config.gain * missed)))

    def read_off(
        self,
        scores: Masks,
        share: Callable[[Masks], float],
        measure: Callable[[Masks], Record],
    ) -> tuple[Masks, Record]:
        """The circuit of a ranking that has the figure.

        Args:
          scores: of all nodes together, see `masks.ranking`.
          share: of the prunable parameters, of a circuit.
          measure: metrics of a binary circuit on validation prompts, with `prunable_kept`.

        Returns:
          The largest circuit of at most the size, or one of the smallest of at most the KL; and
          its metrics, with what was asked for and reached under `target`.
        """
        if self.name == "keep":
            masks = largest_above(scores, lambda each: share(each) <= self.wanted)
            metrics = measure(masks)
        else:
            masks, metrics = self._good_enough(scores, measure)
        told = {self.name: self.wanted, "reached": self.value(metrics)}
        return masks, metrics | {"target": told}

    def _good_enough(
        self, scores: Masks, measure: Callable[[Masks], Record]
    ) -> tuple[Masks, Record]:
        """Bisects the ranking for the KL; all of it is kept where no less is good enough."""
        numbers = distinct(scores)
        least, most = 0, len(numbers) - 1
        found = None
        for _ in range(self.config.tries):
            middle = (least + most + 1) // 2
            masks = above(scores, float(numbers[middle]))
            metrics = measure(masks)
            if metrics["kl"] <= self.wanted:
                found, least = (masks, metrics), middle
            else:
                most = middle - 1
            if self.met(metrics["kl"]) or least >= most:
                break
        if found is None:
            masks = above(scores, float(numbers[0]))
            found = masks, measure(masks)
        return found

    def settle(
        self,
        log_alpha: Masks,
        trained: Sequence[str],
        hold: Callable[[Masks, Masks], Masks],
        measure: Callable[[Masks], Record],
    ) -> tuple[Masks, Masks, Record]:
        """Shifts all gates together until the figure is met, by bisection.

        The order in which training would give nodes up stays as it is; where it stops is moved.
        Where one head or block makes the figure jump over what was asked, it is kept, and only
        the finer gates are shifted on.

        Args:
          log_alpha: float arrays by granularity.
          trained: granularities whose gates may move.
          hold: undoes a shift (new, old) where a gate must not move.
          measure: metrics of a binary circuit on validation prompts, with `prunable_kept`.

        Returns:
          The shifted log-alpha, its circuit, and the circuit's metrics with what was asked for
          and reached under `target`; the nearest circuit if none met it.
        """
        search = _Search(self, log_alpha, hold, measure)
        start, widest = log_alpha, self.config.widest
        for names, low, high, shift in (
            (GRANULARITIES, -widest, widest, 0.0),
            (NEURONS, -widest, 0.0, -widest / 2),
        ):
            names = [name for name in names if name in trained]
            if not names:
                continue
            larger = search.bisect(start, names, low, high, shift)
            if search.met or larger is None:
                break
            start = larger
        assert search.nearest is not None
        return search.nearest[1:]


class _Search:
    """The nearest circuit so far, over several bisections."""

    def __init__(
        self,
        target: Target,
        log_alpha: Masks,
        hold: Callable[[Masks, Masks], Masks],
        measure: Callable[[Masks], Record],
    ) -> None:
        self.target, self.log_alpha = target, log_alpha
        self.hold, self.measure = hold, measure
        self.nearest: tuple[float, Masks, Masks, Record] | None = None
        self.met = False

    def bisect(
        self, start: Masks, names: Sequence[str], low: float, high: float, shift: float
    ) -> Masks | None:
        """Shifts some granularities until the target is met.

        Returns:
          The last log-alpha whose circuit was larger than asked for; None if none was.
        """
        larger = None
        for _ in range(self.target.config.tries):
            moved = {n: a + shift if n in names else a for n, a in start.items()}
            moved = self.hold(moved, self.log_alpha)
            excess = self._try(moved)
            if self.met:
                break
            # A shift upwards opens gates.
            if excess > 0:
                high, larger = shift, moved
            else:
                low = shift
            shift = (low + high) / 2
        return larger

    def _try(self, log_alpha: Masks) -> float:
        masks = binarise(log_alpha)
        measured = self.measure(masks)
        value = self.target.value(measured)
        excess = self.target.excess(value)
        # Any circuit that is good enough comes before one that is not.
        far = abs(excess) + (1e3 if self.target.name == "max_kl" and excess < 0 else 0)
        self.met = self.target.met(value)
        if self.nearest is None or far < self.nearest[0]:
            told = {self.target.name: self.target.wanted, "reached": value}
            self.nearest = far, log_alpha, masks, measured | {"target": told}
        return excess


def target_of(config: Settings) -> Target | None:
    """What settings ask for; None if prices stay as they are.

    Args:
      config: `keep` or `max_kl`.
    """
    for name in ("keep", "max_kl"):
        if (wanted := getattr(config, name)) is not None:
            return Target(name=name, wanted=wanted, config=config.target)
    return None
