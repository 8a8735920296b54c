"""What nodes write: direct logit attribution, and the tokens that their outputs raise and lower.

The final norm is linear once its scale is frozen at that of the whole residual stream, so every
node has a part in the logits of its own, and the parts of all nodes add up to them; norms that
follow attention and MLP alike.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgnp_jax.metrics.scores import in_its_pair, score
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.cached_runs import CachedRuns
from mgnp_jax.passes.embeddings import norm_frozen, read_normed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.node_values import SiteValues
from mgnp_jax.passes.precision import exact
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.types import Params

ROWS_AT_ONCE = 64
"""Nodes whose outputs are unembedded together."""


@functools.partial(jax.jit, static_argnums=0)
@exact
def direct(
    model_config: ModelConfig,
    params: Params,
    runs: CachedRuns,
    embedding: jax.Array,
    clean: SiteValues,
    weights: jax.Array,
) -> dict[str, jax.Array]:
    """What clean outputs at the answer position add to the right minus wrong logits.

    Of whole answers, to their log-probabilities, linear around the clean run.

    Args:
      model_config: the model's shape.
      params: its weights.
      runs: B prompts of K tokens.
      embedding: [K, D] of the clean prompts.
      clean: [L, K, …] the full model's node values.
      weights: [B] of the prompts.

    Returns:
      Summed over prompts: `embedding` [], `heads` [L, H], `mlps` [L], `hidden` [L, F]; biases of
      attention, of hidden neurons' projections and of the final norm are in none but `mlps`. And
      `normed` [L, H, D], what heads write after the frozen norm.
    """
    answers = runs.layout.answers
    at = jax.tree.map(lambda leaf: leaf[:, answers], clean)
    start = embedding[answers]
    whole = start + (at.attn_out + at.mlp_out).sum(0)
    frozen = functools.partial(norm_frozen, model_config, params)
    direction = _direction(model_config, params, runs, whole) * weights[:, None]
    of_pair = in_its_pair(runs.targets, weights)

    def layer(_: None, inputs: Any) -> tuple[None, Any]:
        own, at = inputs
        of = Layer(model_config, own)
        heads = of.step("attn_out_each", at.attn_z)
        projected = at.attn_projected
        if projected is not None:
            projected = jnp.broadcast_to(projected[None], heads.shape)
        heads = of.step("attn_write_frozen", heads, projected)
        normed = frozen(heads, jnp.broadcast_to(whole[None], heads.shape))

        def of_hidden(hidden: jax.Array) -> jax.Array:
            own = of.step("mlp_write_frozen", of.linear("mlp_out", hidden), at.mlp_projected)
            return (frozen(own, whole) * direction).sum()

        by_neuron = (jax.grad(of_hidden)(at.mlp_hidden) * at.mlp_hidden).sum(0)
        by_head = (normed * direction[None]).sum((1, 2))
        by_mlp = (frozen(at.mlp_out, whole) * direction).sum()
        mean = jnp.einsum("hbd,b->hd", normed, of_pair)
        return None, (by_head, by_mlp, by_neuron, mean)

    inputs = (stacked_layers(model_config, params), at)
    _, (heads, mlps, hidden, normed) = jax.lax.scan(layer, None, inputs)
    first = (frozen(start, whole) * direction).sum()
    return {"embedding": first, "heads": heads, "mlps": mlps, "hidden": hidden, "normed": normed}


def _direction(
    model_config: ModelConfig, params: Params, runs: CachedRuns, whole: jax.Array
) -> jax.Array:
    """[B, D] along which what is written, after the frozen norm, adds to the score."""
    target = runs.targets.scores["score"]
    slope = jax.grad(lambda logits: score(target, logits).sum())

    def difference(normed: jax.Array) -> jax.Array:
        logits = read_normed(model_config, params, normed)
        if target.answers.whole:
            return (slope(runs.base_logits.astype(logits.dtype)) * logits).sum()
        return logit_difference(logits, target.answers).sum()

    # Linear, so that it is the same wherever it is taken.
    return jax.grad(difference)(whole)


@functools.partial(jax.jit, static_argnums=0)
@exact
def neurons_normed(
    model_config: ModelConfig,
    params: Params,
    layers: jax.Array,
    neurons: jax.Array,
    activations: jax.Array,
    whole: jax.Array,
    projected: jax.Array | None,
    weights: jax.Array,
) -> jax.Array:
    """What hidden neurons write at the answer position after the frozen norm.

    Args:
      model_config: the model's shape.
      params: its weights.
      layers: [J] int.
      neurons: [J] int, which of the layer.
      activations: [J, B] of them.
      whole: [B, D] clean residual stream after the last layer.
      projected: [L, B, D] what MLPs write before the norm that follows; None where none does.
      weights: [B] of the prompts.

    Returns:
      [J, D], summed over prompts.
    """
    layers_of_model = stacked_layers(model_config, params)

    def one(inputs: Any) -> jax.Array:
        layer, neuron, activation = inputs
        weights_of, before = jax.tree.map(lambda x: x[layer], (layers_of_model, projected))
        own = Layer(model_config, weights_of)
        # Each by itself: its layer is multiplied by one and zeros.
        alone = jax.nn.one_hot(neuron[None], model_config.mlp_width, dtype=whole.dtype)
        written = activation[:, None] * own.linear("mlp_out", alone)
        written = own.step("mlp_write_frozen", written, before)
        normed = norm_frozen(model_config, params, written, whole)
        return (normed * weights[:, None]).sum(0)

    return jax.lax.map(one, (layers, neurons, activations))


@functools.partial(jax.jit, static_argnums=(0, 3))
@exact
def _largest(
    model_config: ModelConfig, params: Params, normed: jax.Array, count: int
) -> tuple[Any, Any]:
    """The largest logits of rows [J, D] and the smallest: values and tokens, [J, count] each."""
    logits = read_normed(model_config, params, normed)
    (most, raised), (least, lowered) = (jax.lax.top_k(sign * logits, count) for sign in (1, -1))
    return (most, raised), (-least, lowered)


def towards_and_away(
    model_config: ModelConfig, params: Params, normed: np.ndarray, count: int, text: Any
) -> tuple[list[Any], list[Any]]:
    """The tokens that outputs raise most, and those they lower most.

    Args:
      model_config: the model's shape.
      params: its weights.
      normed: [J, D] after the frozen norm, mean over prompts.
      count: tokens of each.
      text: token id → its text.

    Returns:
      Two lists of J lists of [token, logit].
    """
    count = min(count, model_config.vocab_size)
    found: tuple[list[Any], list[Any]] = ([], [])
    for start in range(0, len(normed), ROWS_AT_ONCE):
        rows = normed[start : start + ROWS_AT_ONCE]
        filled = np.zeros((ROWS_AT_ONCE, normed.shape[1]), np.float32)
        filled[: len(rows)] = rows
        pair = jax.device_get(_largest(model_config, params, filled, count))
        for into, (values, tokens) in zip(found, pair, strict=True):
            for value, token in zip(values[: len(rows)], tokens[: len(rows)], strict=True):
                into.append([[text(t), v] for t, v in zip(token.tolist(), value.tolist())])
    return found
