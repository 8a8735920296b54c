"""What open nodes cost, and which prices a run goes through."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from mgnp_jax.masks.granularities import (
    ATTENTION_NEURONS,
    GRANULARITIES,
    MLP_OUTPUT,
    TABLE,
    mask_shapes,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """Price of one open node of each granularity, in the objective's unit.

    A node stays where the objective's faithfulness terms lose more without it than it costs.
    Neurons are paid for by their parameters; heads and blocks have prices of their own, as they
    are what a person reads. Hidden neurons, heads and blocks cost the same in every model: a
    mean over a granularity's gates, as in appendix C, would make each node of a small model dearer
    than one of a large model. What is in a node and not trained apart is paid for beside these.
    Chosen on SmolLM2 (experiments/LOG.md).
    """

    attention_blocks: float = 0.01
    """A whole attention block."""
    mlp_blocks: float = 0.058
    """A whole MLP block."""
    attention_heads: float = 0.02
    """A head."""
    attention_neurons: float | None = None
    """One output of a head; by default as much a parameter as an MLP hidden neuron costs."""
    mlp_hidden: float = 2e-4
    """An MLP neuron after the activation."""
    mlp_output: float | None = None
    """One dimension of what an MLP writes; by default as much a parameter as an MLP hidden neuron
    costs."""
    embedding: float = 0.0
    """The embedding; counts only if it is trained."""

    def __post_init__(self) -> None:
        """Refuses negative prices, which would reward keeping everything."""
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 0:
                raise MgnpError(f"penalties.{name} must not be negative, got {value}")

    def of_model(
        self, model_config: ModelConfig, trained: Sequence[str] = GRANULARITIES
    ) -> dict[str, float]:
        """What one open node of each granularity costs.

        Args:
          model_config: whose shape says how many parameters a neuron has. Value weights that
            several heads share count for each of them in part.
          trained: granularities whose gates may close. All others that are in a node are paid for
            with it, as they stay as long as it does, but for heads that lose all their neurons.
        """
        c, costs = model_config, model_config.family.costs(model_config)
        hidden = costs.hidden_in + costs.hidden_row * c.width
        parameters = {
            ATTENTION_NEURONS: costs.z_row + costs.value * c.kv_heads / c.heads,
            MLP_OUTPUT: costs.output + costs.hidden_row * c.mlp_width,
        }
        by_size = {name: self.mlp_hidden * size / hidden for name, size in parameters.items()}
        said = dataclasses.asdict(self)
        prices = {name: by_size[name] if price is None else price for name, price in said.items()}
        shapes = mask_shapes(c)
        for name, kind in reversed(TABLE.items()):
            if name not in trained and kind.parent is not None:
                prices[kind.parent] += shapes[name][-1] * prices[name]
                prices[name] = 0.0
        return prices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nesting:
    """Prices of a run that ranks every node by the price up to which it is worth keeping."""

    least: float = 0.125
    """Lowest price that a prompt may have."""
    most: float = 8.0
    """Highest."""
    slope: float = 1.5
    """By how much log-alpha falls with the logarithm of the price."""
    bands: int = 1
    """Parts of the range that steps go through in turn, so that what a part's prices all close is
    left out of its steps: of two, every other step's prompts pay prices of the dearer half. Meant
    for where a step takes long beside compiling it: large models, long prompts, many steps."""

    def __post_init__(self) -> None:
        """Refuses prices that are none."""
        if not 1e-6 <= self.least < self.most <= 1e6:
            raise MgnpError(
                "nesting.least and nesting.most must lie between 1e-6 and 1e6, the first below the "
                f"second, got {self.least} and {self.most}"
            )
        if not 1e-3 <= self.slope <= 1e3:
            raise MgnpError(f"nesting.slope must lie between 1e-3 and 1e3, got {self.slope}")
        if self.bands < 1:
            raise MgnpError(f"nesting.bands must be at least 1, got {self.bands}")

    @property
    def log_range(self) -> tuple[float, float]:
        """Logarithms of the lowest and of the highest price."""
        return math.log(self.least), math.log(self.most)

    def widest_shift(self, band: int = 0) -> float:
        """What is added to log-alpha at the lowest price of a band.

        Args:
          band: from 0, the cheapest.
        """
        low, high = self.log_range
        return -self.slope * (low + (high - low) * band / self.bands)
