"""The words every other file uses: axis letters, pytrees, prompts and answers, random streams.

Axis letters, the same in every file and docstring:
  B batch (prompts), T position, L layer, H head, E head width, D residual width,
  F MLP width, V vocabulary, K packed tokens, N prompts of a whole split,
  A answer tokens of a prompt, S streams (0 clean, 1 corrupted).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import struct

Params = Mapping[str, Any]
"""A model's frozen weights: nested dict; leaves under `blocks` are stacked [L, ...]."""

AblationValues = dict[str, Any]
"""Constants given to pruned nodes, by site: `embedding` [D], the others [L, …] as `SiteValues`."""

Masks = dict[str, jax.Array]
"""Gates (or log-alpha, or scores) by granularity; shapes in `mgnp_jax.masks.granularities`."""

Record = dict[str, Any]
"""What a method says while it works: a JSON dict."""

Tokenizer = Any
"""A transformers tokenizer (`PreTrainedTokenizerBase`), whose own types are too loose to use;
None where a checkpoint has none."""

MASK_STREAM, DATA_STREAM, INIT_STREAM, HALVES_STREAM, VOTES_STREAM = range(5)
"""What a key is folded with first, so that no two uses of a run's root key meet."""


class MgnpError(ValueError):
    """Bad input from the user; the message says what was wanted, got, and to do."""


def stream_key(root: jax.Array, stream: int, step: jax.Array | int) -> jax.Array:
    """Derives the key of one random stream at one step from a run's root key.

    Args:
      root: [] typed key of the run; not consumed, only folded.
      stream: one of the numbers above.
      step: step (or epoch) number, from 0.

    Returns:
      [] typed key.
    """
    return jax.random.fold_in(jax.random.fold_in(root, stream), step)


def checksum(trees: Any, facts: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of arrays, their names, shapes and dtypes.

    Args:
      trees: pytree of arrays.
      facts: what belongs to arrays by name, a JSON dict: it counts, in one spelling.

    Returns:
      Hex digits.
    """
    if facts is not None:
        text = json.dumps(facts, sort_keys=True)
        trees = {**trees, "metadata": np.frombuffer(text.encode(), np.uint8)}
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(trees):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def plain_json(value: Any) -> Any:
    """What JSON can hold of a value, the same before and after it was written.

    Args:
      value: anything; arrays and tuples become lists, keys and other things text, numbers that
        are not finite None, for which JSON has no word.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return plain_json(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


@struct.dataclass
class Answers:
    """The right and the wrong answers of prompts, each one token; or one token of each in a row.

    Attributes:
      tokens: [B, A] int token ids.
      signs: [B, A] float; +1 for a right answer, −1 for a wrong one, 0 for entries that only
        fill the row. In a score of whole answers, what their log-probabilities are multiplied by.
      whole: column j is one answer in all rows of a pair, each of which has one of its tokens or
        none; what is said of the pair is said of their log-probability together.
    """

    tokens: Any
    signs: Any
    whole: bool = struct.field(pytree_node=False, default=False)


AnswerMetric = Callable[[jax.Array, Answers], jax.Array]
"""(logits [B, V] at the answer position, answers) → [B]; those built in are in `tasks.metrics`."""


@struct.dataclass
class Score:
    """A figure that says how well prompts are answered.

    Attributes:
      answers: that it is read on.
      metric: how.
    """

    answers: Answers
    metric: AnswerMetric = struct.field(pytree_node=False)


@struct.dataclass
class Targets:
    """What prompts are answered with, and what is measured there.

    Attributes:
      answers: a prompt is answered rightly if the best right answer beats the best wrong one.
      scores: by name; `"score"` is the task's own, the others are reported beside it.
      kl_over: [B, C] int tokens by name of the KL that is taken over them alone.
      of_pair: [B, 2] float, where a pair has several rows: 1 over their number, by which a row
        counts in the pair's mean; and 1 in the first of them, else 0. None where each is a pair.
    """

    answers: Answers
    scores: dict[str, Score]
    kl_over: dict[str, Any] = struct.field(default_factory=dict)
    of_pair: Any = None


@struct.dataclass
class Batch:
    """Clean and corrupted prompts of equal length, row by row, with their answers.

    Also the form of a whole split (then B is N). Rows are right-padded to T, and read at their last
    token. Where whole answers are scored, a pair of prompts has a row for each place at which an
    answer is read: first the prompts alone, then with what an answer begins with behind both.

    Attributes:
      clean: [B, T] int32 token ids.
      corrupted: [B, T] int32 token ids; each row as long as its clean prompt.
      attention_mask: [B, T] bool, True on real tokens; the same for both streams.
      targets: their answers.
      prefix: text that was put before every prompt; None where that is not known.
      pair: [B] int, by which rows of one pair are known, in increasing order; None where every row
        is a pair.
    """

    clean: Any
    corrupted: Any
    attention_mask: Any
    targets: Targets
    prefix: str | None = struct.field(pytree_node=False, default=None)
    pair: Any = None

    def __len__(self) -> int:
        """Number of rows."""
        return self.clean.shape[0]

    @property
    def pairs(self) -> int:
        """Number of prompt pairs."""
        return len(self) if self.pair is None else len(np.unique(self.pair))

    @property
    def pair_of_row(self) -> np.ndarray:
        """[B] int, which of the pairs each row is of, counted from 0."""
        if self.pair is None:
            return np.arange(len(self))
        return np.unique(self.pair, return_inverse=True)[1].reshape(-1)

    def openings(self) -> Batch:
        """The first row of each pair: the prompts alone, before any answer."""
        if self.pair is None:
            return self
        return self.take(np.unique(self.pair, return_index=True)[1])

    def of_pairs(self, which: slice) -> Batch:
        """Selects pairs with all their rows.

        Args:
          which: of the pairs.

        Returns:
          A batch of them in their order.
        """
        if self.pair is None:
            return self.take(which)
        chosen = np.zeros(self.pairs, bool)
        chosen[which] = True
        return self.take(np.flatnonzero(chosen[self.pair_of_row]))

    def take(self, rows: Any) -> Batch:
        """Selects rows.

        Args:
          rows: [K] int indices or a slice.

        Returns:
          A batch of K rows, same padding.
        """
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def spread(self, count: int | None) -> Batch:
        """So many pairs from all over a split, in which those of one clean prompt are neighbours.

        Args:
          count: how many; None, or more than there are, for all.

        Returns:
          A batch of them in their order.
        """
        pairs = self.pairs
        if count is None or count >= pairs:
            return self
        chosen = np.arange(count) * pairs // count
        if self.pair is None:
            return self.take(chosen)
        return self.take(np.flatnonzero(np.isin(self.pair_of_row, chosen)))

    @property
    def streams(self) -> np.ndarray:
        """[S, B, T] clean and corrupted tokens stacked on the stream axis."""
        return np.stack([np.asarray(self.clean), np.asarray(self.corrupted)])
