"""What open nodes cost, and how prices follow a size or a quality that is asked for."""

from __future__ import annotations

import dataclasses
import math

from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """Price of one open node of each granularity, in the objective's unit.

    A node stays where the objective's faithfulness terms lose more without it than it
    costs. The price is the same for every model: a mean over a granularity's gates, as in
    appendix C, would make each node of a small model dearer than one of a large model. In
    nested runs heads and MLP blocks cost `Nesting.coarse` of it.
    """

    attention_blocks: float = 0.01
    """A whole attention block."""
    mlp_blocks: float = 0.145
    """A whole MLP block."""
    attention_heads: float = 0.05
    """A head."""
    attention_neurons: float = 2e-5
    """One output of a head."""
    mlp_hidden: float = 2e-4
    """An MLP neuron after the activation."""
    mlp_output: float = 2e-5
    """One dimension of what an MLP writes."""
    embedding: float = 0.0
    """The embedding; counts only if it is trained."""

    def __post_init__(self) -> None:
        """Refuses negative prices, which would reward keeping everything."""
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise MgnpError(f"penalties.{name} must not be negative, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nesting:
    """Prices of a run that ranks every node by the price up to which it is worth keeping."""

    least: float = 0.125
    """Lowest price that a prompt may have."""
    most: float = 8.0
    """Highest."""
    slope: float = 1.5
    """By how much log-alpha falls with the logarithm of the price."""
    coarse: float = 0.4
    """What a head and an MLP block cost in a nested run, as a share of what `penalties` says; other
    nodes, attention blocks among them, cost all of it. Chosen on SmolLM2 (experiments/LOG.md)."""
    parameters: float = 0.0
    """What all prunable parameters within open nodes cost beside `penalties`, over the root of how
    many the model has. With 1.2e-3 and penalties near 0 sizes rank as they are told; on SmolLM2
    farther from the model than `penalties` at most sizes (experiments/LOG.md)."""

    def __post_init__(self) -> None:
        """Refuses prices that are none."""
        if not 1e-6 <= self.least < self.most <= 1e6:
            raise MgnpError(
                "nesting.least and nesting.most must lie between 1e-6 and 1e6, the first below the "
                f"second, got {self.least} and {self.most}"
            )
        if not 1e-3 <= self.slope <= 1e3:
            raise MgnpError(f"nesting.slope must lie between 1e-3 and 1e3, got {self.slope}")
        if not 0 <= self.coarse < math.inf:
            raise MgnpError(
                f"nesting.coarse must not be negative, got {self.coarse}: it would reward keeping "
                "everything"
            )
        if not 0 <= self.parameters < math.inf:
            raise MgnpError(
                f"nesting.parameters must not be negative, got {self.parameters}: it would reward "
                "keeping everything"
            )

    @property
    def widest_shift(self) -> float:
        """What is added to log-alpha at the lowest price."""
        return -self.slope * math.log(self.least)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """How a size or a quality that is asked for (`keep`, `max_kl`) is met."""

    gain: float = 0.5
    """By how much the price's logarithm follows the logarithm of what was missed."""
    farthest: float = 1.0
    """Most of it that counts at once: gates take steps to follow; prices should not overshoot."""
    arrived: float = 0.7
    """Part of the steps after which the figure is wanted in full."""
    tolerance: float = 0.05
    """Relative error at which a figure is met; half of what is promised, for test prompts."""
    tries: int = 12
    """Validations that each of the two shifts of all log-alpha may take."""
    widest: float = 8.0
    """Log-alpha is shifted by at most this."""
