"""The words every other file uses: axis letters, pytrees, batches, random streams.

Axis letters, the same in every file and docstring:
  B batch (prompts), T position, L layer, H head, E head width, D residual width,
  F MLP width, V vocabulary, N prompts of a whole split, A answer tokens of a prompt,
  S streams (0 clean, 1 corrupted).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import struct

Params = Mapping[str, Any]
"""A model's frozen weights: nested dict; leaves under `blocks` are stacked [L, ...]."""

StandIn = dict[str, Any]
"""Constants for pruned nodes by site: `embedding` [D], the others [L, …] as `SiteValues`."""

Masks = dict[str, jax.Array]
"""Gates (or log-alpha) by granularity name; shapes in `mgnp_jax.masks.granularities`."""

Tokenizer = Any
"""A transformers tokenizer (`PreTrainedTokenizerBase`), whose own types are too loose to use;
None where a checkpoint has none."""

MASK_STREAM, DATA_STREAM = range(2)
"""What a key is folded with first, so that no two uses of a run's root key meet."""


class MgnpError(ValueError):
    """Bad input from the user; the message says what was wanted, got, and to do."""


def stream_key(root: jax.Array, stream: int, step: jax.Array | int) -> jax.Array:
    """Derives the key of one random stream at one step from a run's root key.

    Args:
      root: [] typed key of the run; not consumed, only folded.
      stream: `MASK_STREAM` or `DATA_STREAM`.
      step: step (or epoch) number, from 0.

    Returns:
      [] typed key.
    """
    return jax.random.fold_in(jax.random.fold_in(root, stream), step)


def checksum(trees: Any) -> str:
    """SHA-256 of arrays, their names, shapes and dtypes.

    Args:
      trees: pytree of arrays.

    Returns:
      Hex digits.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(trees):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@struct.dataclass
class Readout:
    """A score that is linear in the logits or probabilities of a few answer tokens.

    score = sum over a of weights[a] * f(logits)[tokens[a]], with f the identity
    (`kind="logits"`) or the softmax over the whole vocabulary (`"probabilities"`).
    A logit difference has tokens (right, wrong) and weights (+1, -1).

    Attributes:
      tokens: [B, A] int token ids.
      weights: [B, A] float; 0 for entries that only fill the row.
      kind: what the weights multiply.
    """

    tokens: Any
    weights: Any
    kind: Literal["logits", "probabilities"] = struct.field(pytree_node=False)


@struct.dataclass
class Batch:
    """Clean and corrupted prompts of equal length, row by row, with their answers.

    Also the form of a whole split (then B is N). Rows are right-padded to T.

    Attributes:
      clean: [B, T] int32 token ids.
      corrupted: [B, T] int32 token ids; each row as long as its clean prompt.
      attention_mask: [B, T] bool, True on real tokens; the same for both streams.
      readouts: scores by name; `"score"` is the task's own, the others are reported
        beside it.
      judge: name of the readout that is above 0 exactly when the right answer won.
      choices: [B, C] int tokens by name of the KL that is taken over them alone.
    """

    clean: Any
    corrupted: Any
    attention_mask: Any
    readouts: dict[str, Readout]
    judge: str = struct.field(pytree_node=False, default="score")
    choices: dict[str, Any] = struct.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of prompt pairs."""
        return self.clean.shape[0]

    def take(self, rows: Any) -> Batch:
        """Selects rows.

        Args:
          rows: [K] int indices or a slice.

        Returns:
          A batch of K rows, same padding.
        """
        return jax.tree.map(lambda leaf: leaf[rows], self)

    @property
    def streams(self) -> np.ndarray:
        """[S, B, T] clean and corrupted tokens stacked on the stream axis."""
        return np.stack([np.asarray(self.clean), np.asarray(self.corrupted)])
