"""Which prompts each step of a training loop sees."""

from __future__ import annotations

import jax
import numpy as np

from mgnp_jax.types import DATA_STREAM, stream_key


def batch_order(root: jax.Array, tokens: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """Which prompts each step sees: one shuffle after another, cut into batches.

    Prompts are dealt like cards, longest last, so that all batches have nearly the same
    number of tokens and one array size serves them without much filling.

    Args:
      root: [] typed key of the run; folded, not consumed.
      tokens: [N] of each prompt.
      batch_size: B.
      steps: number of batches.

    Returns:
      [steps, B] int32 rows; every prompt once an epoch.
    """
    prompts = len(tokens)
    hands = -(-prompts // batch_size)
    shuffles = []
    for epoch in range(-(-steps * batch_size // prompts)):
        key = stream_key(root, DATA_STREAM, epoch)
        draws = np.asarray(jax.random.uniform(key, (2, prompts)))
        ranked = np.lexsort((draws[0], tokens))
        dealt = ranked[np.lexsort((draws[1], np.arange(prompts) // hands))]
        shuffles += [dealt[hand::hands] for hand in range(hands)]
    rows = np.concatenate(shuffles)[: steps * batch_size]
    return rows.reshape(steps, batch_size).astype(np.int32)
