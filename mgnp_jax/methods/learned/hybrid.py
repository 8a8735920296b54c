"""Hybrid: node pruning says which nodes, and gates with a price which of them talk to which."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgnp_jax.masks.edges import edge_count, existing
from mgnp_jax.masks.hard_concrete import THRESHOLD, open_probability, second_order_gates
from mgnp_jax.masks.of_size import of_size
from mgnp_jax.methods.learned.config import Fixed, Run
from mgnp_jax.methods.learned.edge_gates import (
    OfEdges,
    count_of,
    each_edge,
    edges_within,
    key_each,
    mean_over,
    ranked_edges,
)
from mgnp_jax.methods.sizing import Sizing, check_scores
from mgnp_jax.methods.training.schedules import falling, rising
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridConfig(OfEdges):
    """Prunes edges between the nodes that another circuit keeps: which kept node talks to which.

    Gates are binary, and every open edge has a price, as nodes have in node pruning: an edge stays
    where the loss rises by more than that without it. So what is kept follows from the price, and
    no size can be asked for that the circuit does not survive, unless `keep` or `like` ask for it.
    """

    name: ClassVar[str] = "hybrid"

    within: Path | None = None
    """The other circuit: folder of a saved one, of nodes or edges. Wanted."""
    price: float = 5e-4
    """Of one open edge, in the unit of the loss: nats for kl."""
    keep: float = 1.0
    """Most to keep, as a share of the edges between its nodes; fewer where training closes more."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    learning_rate: float = 0.2
    """Peak of Adam's step size, from which it falls along a cosine."""
    final_rate: float = 0.05
    """Share of the step size that is left at the end."""
    initial_log_alpha: float = 2.0
    """Where every log-alpha starts; 2.0 is open with probability 0.97."""
    noise_floor: float = 0.5
    """Least scale of the gates' noise, which falls from 1 at a rate that would end at 0."""
    warmup: float = 0.4
    """Share of the steps over which the price grows from nothing to full."""
    log_every: int = 10
    """Steps between logged lines."""
    validate_every: int = 100
    """Steps between validations of the binary circuit of the size; the last one is kept."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        super().__post_init__()
        for name in ("warmup", "final_rate", "noise_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise MgnpError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.price < math.inf:
            raise MgnpError(f"price must be a number from 0 on, got {self.price}")
        self._check_within(("initial_log_alpha",), -math.inf, math.inf, "must be a number")

    def size(self, model_config: ModelConfig) -> Sizing:
        """The most edges to keep, as a share of all, see `Learned.size`."""
        if self.within is None:
            raise MgnpError(
                "hybrid prunes the edges between the nodes of a circuit, and none is named: pass "
                "the folder of a saved one as within (--within), such as of a node-pruning run"
            )
        between = edge_count(edges_within(model_config, self.within))
        if self.like is None:
            share = self.keep * between / edge_count(existing(model_config))
            return Sizing(model_config, share, None)
        size = super().size(model_config)
        if size.edges > between:
            raise MgnpError(
                f"like asks for {size.edges:,} edges, but between the nodes of {self.within} there "
                f"are {between:,}; name a smaller circuit, or ask for a share (keep)"
            )
        return size

    def chosen(self, size: Sizing, scores: Masks) -> Masks:
        """What is open and leads somewhere, no more than the size, see `Learned.chosen`."""
        if self.like is not None:
            return super().chosen(size, scores)
        check_scores(scores)
        ranked = {name: np.asarray(leaf) for name, leaf in scores.items()}
        left = {name: np.where(leaf > THRESHOLD, leaf, -np.inf) for name, leaf in ranked.items()}
        masks = of_size(jax.device_put(left), None, edges=max(size.edges, 1))
        # Where no open edge leads anywhere, the first of all that do.
        return masks if edge_count(masks) else of_size(scores, None, edges=1)

    def may_be_kept(self, model_config: ModelConfig) -> Masks:
        """The edges between the circuit's nodes, see `OfEdges.may_be_kept`."""
        assert self.within is not None
        return edges_within(model_config, self.within)

    def first(self, key: jax.Array, model_config: ModelConfig) -> Masks:
        """Log-alpha, see `Learned.first`."""
        return each_edge(
            key, model_config, lambda _, shape: jnp.full(shape, self.initial_log_alpha)
        )

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with a cosine step size."""
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps, self.final_rate)
        return optax.adam(rate, eps=self.adam_eps)

    def loss(
        self, moved: Masks, fixed: Fixed, key: jax.Array, step: jax.Array, run: Run
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Badness of one draw, and the price of what is expected to be open."""
        noise = falling(step, self.steps, self.noise_floor)
        keys = key_each(key, moved)
        gates = {
            name: second_order_gates(keys[name], leaf, noise) * fixed.there[name]
            for name, leaf in moved.items()
        }
        bad = run(gates)
        chance = {name: open_probability(leaf) for name, leaf in moved.items()}
        likely = mean_over(fixed.there, chance)
        price = rising(step, self.steps, self.warmup) * self.price
        loss = bad + price * likely * count_of(fixed.there)
        return loss, {**self.told(bad), "edges_open": likely * fixed.before}

    def scores(self, model_config: ModelConfig, moved: Masks, fixed: Fixed) -> Masks:
        """Log-alpha, see `Learned.scores`."""
        return ranked_edges(fixed.there, moved)
