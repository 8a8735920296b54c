"""Mask attribution: scores learned through soft masks of the highest k, with a new k each step."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import READERS, edge_shapes
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS, MLP_HIDDEN, full_masks
from mgnp_jax.masks.selection import filled
from mgnp_jax.methods.learned.config import Fixed, Run
from mgnp_jax.methods.learned.edge_gates import OfEdges, ranked_edges
from mgnp_jax.methods.learned.method import LearnedMethod
from mgnp_jax.methods.learned.soft_top import soft_top
from mgnp_jax.methods.sizing import Sizing
from mgnp_jax.metrics.figures import FigureName
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

RANKED = {
    "node": (ATTENTION_HEADS, MLP_BLOCKS),
    "neuron": (ATTENTION_HEADS, MLP_HIDDEN),
}
"""What has a score of its own at each level of nodes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Mattr(LearnedMethod, abc.ABC):
    """What both levels have in common."""

    learning_rate: float = 0.05
    """Adam's step size."""
    loss_on: FigureName = "score"
    """What is minimised: minus the task's score as published, whatever the model's; KL; or
    minus the probability of right answers less that of wrong ones."""
    temperature: float = 1.0
    """T of the soft mask σ((s − τ) / T)."""
    least: float = 0.001
    """Least share k that is drawn, on a logarithmic scale up to all."""
    validate_every: int = 250
    """Steps between validations of the binary circuit of the size; the last one is kept."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        super().__post_init__()
        if not 0 < self.least < 1:
            raise MgnpError(f"least must lie between 0 and 1, got {self.least}")
        self._check_within(("temperature",), 0, math.inf, "must be a number greater than 0")

    @abc.abstractmethod
    def masks(self, moved: Masks, fixed: Fixed, share: jax.Array) -> Masks:
        """Soft masks of a size.

        Args:
          moved: scores.
          fixed: what stays.
          share: [] in (0, 1).
        """

    def loss(
        self, moved: Any, fixed: Fixed, key: jax.Array, step: jax.Array, run: Run
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Badness of the soft mask of a size that is drawn."""
        del step
        # A little less than all: there the threshold is at minus infinity.
        share = jnp.exp(jax.random.uniform(key, (), minval=jnp.log(self.least), maxval=-1e-3))
        bad = run(self.masks(moved, fixed, share))
        return bad, {**self.told(bad), "share": share}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MattrConfig(_Mattr):
    """Mask attribution of nodes: one run ranks every size.

    Every granularity that is ranked has a threshold of its own, so that k is the share of each, as
    it is where the circuit is read from the ranking.
    """

    name: ClassVar[str] = "mattr"
    of_edges = False

    level: Literal["node", "neuron"] = "neuron"
    """What is ranked: heads and MLP blocks, or heads and MLP hidden neurons."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    keep: float = 0.1
    """Share to keep of the heads and of the MLP hidden neurons; nearly that of the parameters."""

    def fixed(self, model_config: ModelConfig, size: Sizing) -> Fixed:
        """Open gates of what is not ranked, see `Learned.fixed`."""
        ones = {n: leaf.astype(bool) for n, leaf in full_masks(model_config).items()}
        return Fixed(ones, jnp.float32(1), jnp.float32(self.keep))

    def first(self, key: jax.Array, model_config: ModelConfig) -> Masks:
        """Scores of 0, see `Learned.first`."""
        full = full_masks(model_config)
        return {name: jnp.zeros_like(full[name]) for name in RANKED[self.level]}

    def masks(self, moved: Masks, fixed: Fixed, share: jax.Array) -> Masks:
        """See `_Mattr.masks`; what is not ranked is open."""
        ones = {name: leaf.astype(jnp.float32) for name, leaf in fixed.there.items()}
        return ones | {n: soft_top(leaf, share, self.temperature) for n, leaf in moved.items()}

    def scores(self, model_config: ModelConfig, moved: Masks, fixed: Fixed) -> Masks:
        """The scores; what is not ranked has that of what contains it, or the highest in it."""
        return filled(model_config, jax.device_get(moved))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MattrEdgesConfig(_Mattr, OfEdges):
    """Mask attribution of edges: one run ranks every size; all edges share a threshold."""

    name: ClassVar[str] = "mattr-edges"

    steps: int = 5000
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""

    def first(self, key: jax.Array, model_config: ModelConfig) -> Masks:
        """Scores of 0, see `Learned.first`."""
        return {name: jnp.zeros(shape) for name, shape in edge_shapes(model_config).items()}

    def masks(self, moved: Masks, fixed: Fixed, share: jax.Array) -> Masks:
        """See `_Mattr.masks`."""
        flat = jnp.concatenate([moved[name].ravel() for name in READERS])
        there = jnp.concatenate([fixed.there[name].ravel() for name in READERS])
        gates = soft_top(flat, share, self.temperature, there)
        sizes = [moved[name].size for name in READERS]
        parts = jnp.split(gates, [sum(sizes[: n + 1]) for n in range(len(sizes) - 1)])
        return {n: part.reshape(moved[n].shape) for n, part in zip(READERS, parts)}

    def scores(self, model_config: ModelConfig, moved: Masks, fixed: Fixed) -> Masks:
        """The scores, see `Learned.scores`."""
        return ranked_edges(fixed.there, moved)
