"""What a training loop asks of a method's settings."""

from __future__ import annotations

from typing import Any, Protocol

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.spans import Sizes


class Trained(Protocol):
    """What every method that is trained step by step can be asked.

    Attributes:
      steps: how many.
      batch_size: prompt pairs of each.
      votes: how many trainings go side by side, each of its own part of a step's prompts.
      validation_prompts: how many of the split's first are read; None for all.
      execution: how passes are run.
      ablation: what a pruned node is given.
      of_a_step: the same with what a compiled step does not depend on at its default.
      more_bytes: (model's config, sizes of a step's arrays) → what a step takes beside a masked
        pass and its gradient.
    """

    @property
    def steps(self) -> Any:
        """See above."""

    @property
    def batch_size(self) -> Any:
        """See above."""

    @property
    def votes(self) -> int:
        """See above."""
        ...

    @property
    def validation_prompts(self) -> Any:
        """See above."""

    @property
    def execution(self) -> Any:
        """See above."""

    @property
    def ablation(self) -> Any:
        """See above."""

    @property
    def of_a_step(self) -> Any:
        """See above."""

    def more_bytes(self, model_config: ModelConfig, sizes: Sizes) -> int:
        """See above."""
        ...
