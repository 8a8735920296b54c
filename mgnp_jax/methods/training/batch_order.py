"""Which prompts each step of a training loop sees."""

from __future__ import annotations

import jax
import numpy as np

from mgnp_jax.methods.training.trained import Trained
from mgnp_jax.passes.keeping import shares_prefix
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import DATA_STREAM, HALVES_STREAM, VOTES_STREAM, Batch, MgnpError, stream_key


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


def halves(root: jax.Array, train: Batch, votes: int) -> list[np.ndarray]:
    """Which prompts each of several trainings side by side sees: two by two, a half each.

    Args:
      root: [] typed key of the run; folded, not consumed.
      train: N rows; a clean prompt's corrupted ones stay together.
      votes: how many trainings; one sees all.

    Returns:
      [N'] int32 rows for each.

    Raises:
      MgnpError: if there are fewer than two clean prompts to share out.
    """
    if votes == 1:
        return [np.arange(len(train), dtype=np.int32)]
    clean = np.unique(np.asarray(train.openings().clean), axis=0, return_inverse=True)[1]
    prompts = clean.reshape(-1)[train.pair_of_row]
    count = int(prompts.max()) + 1
    if count < 2:
        raise MgnpError(
            f"votes must be 1 with {many(count, 'training prompt')}, got {votes}: each is of a half"
        )
    found = []
    for pair in range(-(-votes // 2)):
        shuffled = jax.random.permutation(stream_key(root, HALVES_STREAM, pair), count)
        first = np.isin(prompts, np.asarray(shuffled)[: count // 2])
        found += [np.flatnonzero(first), np.flatnonzero(~first)]
    return [rows.astype(np.int32) for rows in found[:votes]]


def prompts_of_step(config: Trained, count: int) -> int:
    """How many prompts a step has.

    Args:
      config: asked for.
      count: of the training prompts.

    Raises:
      MgnpError: if the devices and parts cannot have as many each.
    """
    execution, votes = config.execution, config.votes
    size = votes * min(config.batch_size, max(count // min(votes, 2), 1))
    if size % execution.parts:
        raise MgnpError(
            f"{size} training prompts cannot be shared evenly by {execution.replicas} devices (or "
            f"groups of them) in {execution.accumulate} parts; bring more prompts or ask for fewer"
        )
    return size


def rows_of_steps(
    key: jax.Array, train: Batch, config: Trained, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which training prompts a search reads, and when.

    Args:
      key: [] typed key of the run; folded, not consumed.
      train: all of them.
      config: how many steps, of how many trainings side by side.
      size: B, of a step.

    Returns:
      [N'] those that some step reads; [steps, B] which of them each one does.
    """
    spans = spans_of(train, share_prefix=shares_prefix(config.execution, config.ablation))
    tokens, each = spans.lengths - spans.starts, size // config.votes
    parts = halves(key, train, config.votes)
    keys = [key]
    if config.votes > 1:
        keys = [stream_key(key, VOTES_STREAM, vote) for vote in range(config.votes)]
    orders = [
        rows[batch_order(k, tokens[rows], each, config.steps)] for k, rows in zip(keys, parts)
    ]
    order = np.concatenate(orders, axis=1)
    read = np.unique(order)
    return read, np.searchsorted(read, order).astype(np.int32)
