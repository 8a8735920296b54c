"""Nodes that training has closed for good leave the computation.

A gate counts as closed for good when its node is drawn open less often than `RARE`. From
then on it is not drawn and its log-alpha does not move: what goes on is the same objective,
restricted to what is still open. With first-order gates, whose slope does not fall with the
noise, some of these might have opened again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mgnp_jax.masks.hard_concrete import THRESHOLD
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import parameter_costs
from mgnp_jax.models.segments import Segment, narrowed, plan
from mgnp_jax.types import Masks, Params

RARE = 0.02
"""Least chance of being drawn open of a node that still counts."""

COMPILING = 2e12
"""Multiply-adds that take as long as compiling a smaller model: some forty seconds of two CPU
cores. Counted, not timed, so that the same seed gives the same circuit on a busy machine."""


@struct.dataclass
class Compaction:
    """What is left of the model.

    Attributes:
      segments: its layers.
      open: [L, …] bool by granularity; False where closed for good.
    """

    segments: tuple[Segment, ...]
    open: Masks

    def masks(self, masks: Masks) -> list[Masks]:
        """Gates (or log-alpha) of what is left, for each segment.

        Args:
          masks: [L, …] by granularity.
        """
        parts = [segment.masks(masks) for segment in self.segments]
        if "embedding" in masks:
            parts[0]["embedding"] = masks["embedding"]
        return parts

    def close(self, log_alpha: Masks) -> Masks:
        """Log-alpha whose own gate is closed wherever the node is.

        A node may be closed for good by its block alone. The block may open again for the
        nodes that are left in it; those that were left out must then stay closed.

        Args:
          log_alpha: [L, …] by granularity.
        """
        return {
            name: jnp.where(self.open[name], leaf, jnp.minimum(leaf, THRESHOLD - 1))
            if name in self.open
            else leaf
            for name, leaf in log_alpha.items()
        }

    def hold(self, new: Masks, old: Masks) -> Masks:
        """Log-alpha that moves only where a gate is not closed for good.

        Args:
          new: after a step.
          old: before it.
        """
        return {
            name: jnp.where(self.open[name], leaf, old[name]) if name in self.open else leaf
            for name, leaf in new.items()
        }


def still_open(log_alpha: Masks, noise: float) -> dict[str, np.ndarray]:
    """Which nodes are drawn open often enough to count, hierarchy included.

    Args:
      log_alpha: [L, …] by granularity.
      noise: scale of the gates' noise.

    Returns:
      [L, …] bool by granularity.
    """
    # Without noise a gate is either open or not.
    scale = max(noise, 1e-3)
    chance = {
        name: np.exp(-np.logaddexp(0.0, (THRESHOLD - leaf.astype(np.float64)) / scale))
        for name, leaf in jax.device_get(log_alpha).items()
    }
    neurons = chance["attention_neurons"] * chance["attention_heads"][..., None]
    neurons = neurons * chance["attention_blocks"][:, None, None]
    heads = neurons.max(-1) >= RARE
    mlp = chance["mlp_blocks"] * chance["mlp_output"].max(-1)
    hidden = chance["mlp_hidden"] * mlp[:, None] >= RARE
    mlp_open = hidden.any(-1)
    return {
        "attention_blocks": heads.any(-1),
        "attention_heads": heads,
        "attention_neurons": np.broadcast_to(heads[..., None], neurons.shape),
        "mlp_blocks": mlp_open,
        "mlp_hidden": hidden,
        "mlp_output": np.broadcast_to(mlp_open[:, None], chance["mlp_output"].shape),
    }


def full_cost(config: ModelConfig) -> float:
    """Multiply-adds a token of the whole model's layers, in which heads may share keys.

    Args:
      config: the model's shape.
    """
    costs = parameter_costs(config)
    queries = config.heads * (costs.query + costs.z_row * config.head_width)
    shared = config.kv_heads * (costs.key + costs.value * config.head_width)
    mlp = config.mlp_width * (costs.hidden_in + config.width * costs.hidden_row)
    return float(config.layers * (queries + shared + mlp))


def compact(
    config: ModelConfig,
    params: Params,
    log_alpha: Masks,
    noise: float,
    cost: float,
    before: Compaction | None,
    to_come: int,
) -> tuple[Compaction, float] | None:
    """Leaves out what is closed for good, if that saves enough.

    Args:
      config: the model's shape.
      params: its weights.
      log_alpha: [L, …] by granularity.
      noise: scale of the gates' noise.
      cost: multiply-adds a token at present.
      before: what was left out already stays out.
      to_come: tokens of all steps still to come.

    Returns:
      What is left and its cost; None if it would not be worth a compilation.
    """
    left = still_open(log_alpha, noise)
    if before is not None:
        left = {name: mask & np.asarray(before.open[name]) for name, mask in left.items()}
    heads, hidden = left["attention_heads"], left["mlp_hidden"]
    chosen = plan(config, heads.sum(1), hidden.sum(1))
    # Each step has a forward pass and the gradient's.
    if 2 * (cost - chosen.cost) * to_come < COMPILING:
        return None
    segments = narrowed(config, params, chosen, heads, hidden)
    return Compaction(segments=segments, open=jax.tree.map(jnp.asarray, left)), chosen.cost
