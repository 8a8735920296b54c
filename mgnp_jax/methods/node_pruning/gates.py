"""log-alpha → gates for one step, and how many are expected to be open."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mgnp_jax.masks.hard_concrete import draw_of, open_probability
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.types import Masks


def sample_masks(
    key: jax.Array,
    log_alpha: Masks,
    config: Settings,
    noise: jax.Array | float,
    prompts: int,
) -> Masks:
    """Draws every gate once for each prompt, or once for the batch.

    One draw for a whole batch leaves its gradient with the noise of a single draw
    however large the batch; fine gates, whose slopes are small, then never close.

    Args:
      key: [] typed key; consumed.
      log_alpha: float arrays by granularity, the layer axis first.
      config: how gates are drawn, and which; the others are open.
      noise: [] scale of the logistic noise.
      prompts: B.

    Returns:
      Gates [L, B, …] by granularity; [B] for the embedding.
    """
    keys = jax.random.split(key, len(log_alpha))

    def each(key: jax.Array, name: str) -> jax.Array:
        leaf = log_alpha[name]
        shape = (*leaf.shape[:1], prompts, *leaf.shape[1:])

        def spread(leaf: jax.Array) -> jax.Array:
            return jnp.broadcast_to(jnp.expand_dims(leaf, min(leaf.ndim, 1)), shape)

        if name not in config.trained:
            return jnp.ones_like(spread(leaf))
        draw = draw_of(config.gates, name)
        if config.draws == "batch":
            return spread(draw(key, leaf, noise))
        return draw(key, spread(leaf), noise)

    return {name: each(k, name) for k, name in zip(keys, sorted(log_alpha))}


def expected_open(log_alpha: Masks, trained: Sequence[str]) -> dict[str, jax.Array]:
    """Expected fraction of open gates of each granularity (appendix C's normalised L0).

    Args:
      log_alpha: float arrays by granularity.
      trained: names of the gates that are drawn; the others are open.

    Returns:
      [] fractions by granularity.
    """
    return {
        name: open_probability(leaf).mean() if name in trained else jnp.ones(())
        for name, leaf in log_alpha.items()
    }
