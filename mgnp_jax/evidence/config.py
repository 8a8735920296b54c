"""Settings of `explain`: on how many prompts, of how many nodes, in how much memory."""

from __future__ import annotations

import dataclasses

from mgnp_jax.passes.settings import SAME_RESULT, Execution
from mgnp_jax.types import MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How much evidence is gathered."""

    prompts: int = 64
    """Prompts that effects are means over: the first of the split."""
    examples: int = 8
    """Of these, prompts that are shown with attention and effects by position."""
    neurons: int = 200
    """Kept neurons, the strongest to first order, whose effects are exact; and as many MLP neurons
    of which is said what they write and what drives them."""
    heads: int = 64
    """Kept heads, the strongest by removal, whose attention patterns are kept; fewer where prompts
    are long."""
    tokens: int = 10
    """Tokens that a head or neuron writes towards, and away from."""
    drivers: int = 5
    """Prompts that drive a neuron most."""
    edges: int = 500
    """Edges between kept nodes, the strongest by attribution."""
    edge_prompts: int = 32
    """Of the prompts, those that edges' attributions are means over."""
    memory_gib: float | None = dataclasses.field(default=None, metadata=SAME_RESULT)
    """Most memory that is taken, as of `Execution`: by default half of what is free, on CPUs at
    most 4."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        for name in ("prompts", "examples", "tokens", "drivers", "edge_prompts"):
            if getattr(self, name) < 1:
                raise MgnpError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("neurons", "heads", "edges"):
            if getattr(self, name) < 0:
                raise MgnpError(f"{name} must not be negative, got {getattr(self, name)}")
        # It says what is wrong with it.
        Execution(memory_gib=self.memory_gib)
