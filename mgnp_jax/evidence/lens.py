"""The logit lens: what would be answered if the residual stream were read after each layer."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mgnp_jax.metrics.scores import score
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.precision import exact
from mgnp_jax.types import Answers, Params, Targets


@functools.partial(jax.jit, static_argnums=0)
@exact
def logit_lens(
    model_config: ModelConfig,
    params: Params,
    streams: jax.Array,
    targets: Targets,
    weights: jax.Array,
) -> dict[str, jax.Array]:
    """Reads the stream after each layer through the final norm and the unembedding.

    Args:
      model_config: the model's shape.
      params: its weights.
      streams: [L + 1, B, D] at the answer position.
      targets: the prompts' answers.
      weights: [B] of the prompts.

    Returns:
      Summed over prompts, [L + 1] each: `score`, `answer_probability` of all right answers
      together, `answer_rank` of the best of them, 1 for the most likely token. Of whole answers the
      last two are of their first tokens.
    """
    answers, right = targets.answers, _right(targets.answers)
    first = weights if targets.of_pair is None else weights * targets.of_pair[:, 1]

    def one(stream: jax.Array) -> tuple[jax.Array, ...]:
        logits = unembed(model_config, params, stream)
        own = jnp.take_along_axis(logits, answers.tokens, -1)
        best = jnp.where(answers.signs > 0, own, -jnp.inf).max(-1)
        chance = jnp.exp(own - jax.nn.logsumexp(logits, -1, keepdims=True))
        chance = jnp.where(right, chance, 0).sum(-1)
        rank = 1.0 + (logits > best[:, None]).sum(-1)
        own = score(targets.scores["score"], logits)
        return (own * weights).sum(), (chance * first).sum(), (rank * first).sum()

    names = ("score", "answer_probability", "answer_rank")
    return dict(zip(names, jax.lax.map(one, streams), strict=True))


def _right(answers: Answers) -> jax.Array:
    """[B, A] bool, right answers; of whole ones with the same token in a row, the first."""
    right = answers.signs > 0
    if not answers.whole:
        return right
    same = (answers.tokens[:, :, None] == answers.tokens[:, None, :]) & right[:, None, :]
    return right & ~jnp.tril(same, -1).any(-1)
