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
    shift: jax.Array | None = None,
) -> Masks:
    """Draws every gate once for each prompt, or once for the batch.

    With several `votes` each has its own log-alpha and its own part of the prompts, in their order.

    One draw for a whole batch leaves its gradient with the noise of a single draw
    however large the batch; fine gates, whose slopes are small, then never close.

    Args:
      key: [] typed key; consumed.
      log_alpha: float arrays by granularity, the layer axis first; before it that of votes, if
        there are several.
      config: how gates are drawn, and which; the others are open.
      noise: [] scale of the logistic noise.
      prompts: B.
      shift: [B] taken from log-alpha for each prompt; None for nothing.

    Returns:
      Gates [L, B, …] by granularity; [B] for the embedding.
    """
    keys = jax.random.split(key, len(log_alpha))

    def each(key: jax.Array, name: str) -> jax.Array:
        leaf = log_alpha[name]

        def spread(leaf: jax.Array) -> jax.Array:
            if config.votes > 1:
                votes, layers, *others = leaf.shape
                shape = (layers, votes, prompts // votes, *others)
                each = jnp.broadcast_to(jnp.moveaxis(leaf, 0, 1)[:, :, None], shape)
                return each.reshape(layers, prompts, *others)
            shape = (*leaf.shape[:1], prompts, *leaf.shape[1:])
            return jnp.broadcast_to(jnp.expand_dims(leaf, min(leaf.ndim, 1)), shape)

        if name not in config.trained:
            return jnp.ones_like(spread(leaf))
        draw = draw_of(config.gates, name)
        if config.draws == "batch":
            return spread(draw(key, leaf, noise))
        own = spread(leaf)
        if shift is not None:
            own = own - shift.reshape(1, prompts, *[1] * (own.ndim - 2))
        return draw(key, own, noise)

    return {name: each(k, name) for k, name in zip(keys, sorted(log_alpha))}


def expected_open(
    log_alpha: Masks, trained: Sequence[str], shift: jax.Array | None = None, votes: int = 1
) -> dict[str, jax.Array]:
    """Expected fraction of open gates of each granularity (appendix C's normalised L0).

    Args:
      log_alpha: float arrays by granularity.
      trained: names of the gates that are drawn; the others are open.
      shift: [B] taken from log-alpha for each prompt, over whose prompts the fraction is the mean;
        None for nothing.
      votes: of how many trainings log-alpha has one each, see `sample_masks`.

    Returns:
      [] fractions by granularity.
    """

    def each(leaf: jax.Array) -> jax.Array:
        if shift is not None and votes > 1:
            leaf = leaf[:, None] - shift.reshape(votes, -1, *[1] * (leaf.ndim - 1))
        elif shift is not None:
            leaf = leaf[None] - shift.reshape(-1, *[1] * leaf.ndim)
        return open_probability(leaf).mean()

    return {
        name: each(leaf) if name in trained else jnp.ones(()) for name, leaf in log_alpha.items()
    }
