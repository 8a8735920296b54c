"""The weights that gpt2-mini begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.weights import init_params
from mgnp_jax.tasks import arithmetic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SIZE = 0.02
"""Standard deviation of the random embeddings, which what stands in their place has, too."""
CIRCLES = (180, 100, 50, 25, 20, 10, 5, 4, 2, 7)
"""Numbers in a turn of each circle that numbers begin on."""


def initial(
    key: jax.Array, shape: ModelConfig, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Random weights, but for positions and numbers, which begin on circles.

    A head that looks one word back is nearer to these than to random positions, and sums are
    turns; as large as random ones are.

    Args:
      key: [] typed key; consumed.
      shape: of the model.
      tokenizer: of the texts.
    """
    params = init_params(key, shape)
    embeddings: dict[str, Any] = {**params["embeddings"]}
    turns = np.arange(shape.context)[:, None] * 100.0 ** -np.linspace(0, 1, shape.width // 2)
    positions = SIZE * 2**0.5 * np.concatenate([np.sin(turns), np.cos(turns)], 1)
    turns = np.array(arithmetic.NUMBERS)[:, None] / np.array(CIRCLES) * 2 * np.pi
    numbers = np.concatenate([np.cos(turns), np.sin(turns)], 1) / len(CIRCLES) ** 0.5
    rng = np.random.default_rng(1)
    planes = np.linalg.qr(rng.normal(size=(shape.width, 2 * len(CIRCLES))))[0].T
    tokens = np.array(embeddings["token"]["embedding"])
    ids = tokenizer.convert_tokens_to_ids([f" {number}" for number in arithmetic.NUMBERS])
    tokens[ids] = 0.3 * tokens[ids] + SIZE * shape.width**0.5 * numbers @ planes
    embeddings["position"] = {"embedding": jnp.asarray(positions, jnp.float32)}
    embeddings["token"] = {"embedding": jnp.asarray(tokens)}
    return {**params, "embeddings": embeddings}
