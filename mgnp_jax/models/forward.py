"""Forward passes: plain, plain with node values kept, and masked. All family-blind.

Layers run under one `lax.scan` over params (and gates, and corrupted values) stacked on
the layer axis: one compilation of a block serves the whole model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named
from mgnp_jax.models.nodes import SiteValues, blend, site_gates
from mgnp_jax.types import Masks, Params

F = TypeVar("F", bound=Callable[..., Any])


def exact(function: F) -> F:
    """Traces a function with full float32 products, on GPUs too.

    Their default rounds the factors to ten bits: logits move by more than the parity with
    the published models allows, and a circuit would score differently on another device.

    Args:
      function: to be traced.
    """

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return traced  # pyright: ignore[reportReturnType]


def _check_tokens(config: ModelConfig, tokens: jax.Array) -> None:
    chex.assert_rank(tokens, 2)
    if tokens.shape[1] > config.context:
        raise ValueError(
            f"prompts of {tokens.shape[1]} tokens are longer than the model's context "
            f"of {config.context}; shorten them"
        )


def _attend(tokens: jax.Array, attention_mask: jax.Array | None) -> jax.Array:
    """[B, T, T] bool: position t may look at real positions up to t."""
    length = tokens.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))[None]
    if attention_mask is None:
        return jnp.broadcast_to(causal, (tokens.shape[0], length, length))
    chex.assert_equal_shape([tokens, attention_mask])
    # A padded position may look at itself: a row that sees nothing is 0/0 on some
    # devices, and right-padding keeps real positions from ever seeing it.
    itself = jnp.eye(length, dtype=bool)[None]
    return causal & (attention_mask.astype(bool)[:, None, :] | itself)


def _site(config: ModelConfig, layer: Params, name: str, *inputs: jax.Array) -> Any:
    block = family_named(config.family).block(config)
    return block.apply({"params": layer}, *inputs, method=name)


@exact
def embed(config: ModelConfig, params: Params, tokens: jax.Array) -> Any:
    """Token (and position) embeddings.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [B, T] int ids.

    Returns:
      [B, T, D].
    """
    ends = family_named(config.family).ends(config)
    return ends.apply({"params": params["ends"]}, tokens, method="embed")


@exact
def unembed(config: ModelConfig, params: Params, residual: jax.Array) -> Any:
    """Final norm and unembedding.

    Args:
      config: the model's shape.
      params: its weights.
      residual: [..., D] residual stream after the last layer.

    Returns:
      [..., V] logits.
    """
    ends = family_named(config.family).ends(config)
    return ends.apply({"params": params["ends"]}, residual, method="unembed")


@exact
def capture(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, SiteValues]:
    """Runs the untouched model and keeps every node's value.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [B, T] int ids, right-padded.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      The last residual [B, T, D], the embedding [B, T, D], the site values [L, B, T, …].
    """
    _check_tokens(config, tokens)
    attend = _attend(tokens, attention_mask)
    embedding = embed(config, params, tokens)

    def layer(x: jax.Array, weights: Params) -> tuple[jax.Array, SiteValues]:
        z = _site(config, weights, "attn_z", x, attend)
        out = _site(config, weights, "attn_out", z)
        x = x + out
        hidden = _site(config, weights, "mlp_hidden", x)
        mlp = _site(config, weights, "mlp_out", hidden)
        return x + mlp, SiteValues(z, out, hidden, mlp)

    residual, values = jax.lax.scan(layer, embedding, params["blocks"])
    return residual, embedding, values


@functools.partial(jax.jit, static_argnums=0)
def forward(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The base model, as published.

    Args:
      config: the model's shape.
      params: its weights.
      tokens: [B, T] int ids, right-padded.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits; rows at padded positions mean nothing.

    Raises:
      ValueError: if the prompts are longer than the context.
    """
    residual, _, _ = capture(config, params, tokens, attention_mask)
    return unembed(config, params, residual)


@exact
def masked_residual(
    config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: tuple[jax.Array, SiteValues],
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """Runs the masked stream: each node mixes its value with the corrupted run's.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity, in [0, 1]; without `"embedding"` that gate is 1.
      clean: [B, T] int ids of the clean prompts.
      corrupted: embedding [B, T, D] and site values [L, B, T, …] of the corrupted run,
        as `capture` returns them.
      attention_mask: [B, T], shared by both streams.

    Returns:
      [B, T, D] residual stream after the last layer.
    """
    _check_tokens(config, clean)
    attend = _attend(clean, attention_mask)
    corrupted_embedding, corrupted_values = corrupted
    embedding = embed(config, params, clean)
    if "embedding" in masks:
        gate = jnp.broadcast_to(masks["embedding"], embedding.shape[-1:])
        embedding = blend(gate, embedding, corrupted_embedding)

    def layer(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        weights, gate, other = inputs
        z = _site(config, weights, "attn_z", x, attend)
        z = blend(gate.attn_z, z, other.attn_z)
        out = _site(config, weights, "attn_out", z)
        whole = jnp.broadcast_to(gate.attn_out, out.shape[-1:])
        x = x + blend(whole, out, other.attn_out)
        hidden = _site(config, weights, "mlp_hidden", x)
        hidden = blend(gate.mlp_hidden, hidden, other.mlp_hidden)
        mlp = _site(config, weights, "mlp_out", hidden)
        return x + blend(gate.mlp_out, mlp, other.mlp_out), None

    layers = (params["blocks"], site_gates(masks), corrupted_values)
    residual, _ = jax.lax.scan(layer, embedding, layers)
    return residual


@functools.partial(jax.jit, static_argnums=0)
def two_stream_forward(
    config: ModelConfig,
    params: Params,
    masks: Masks,
    clean: jax.Array,
    corrupted: jax.Array,
    attention_mask: jax.Array | None = None,
) -> jax.Array:
    """The masked model on clean prompts, pruned nodes taking the corrupted run's values.

    Args:
      config: the model's shape.
      params: its weights.
      masks: gates by granularity, in [0, 1].
      clean: [B, T] int ids, right-padded.
      corrupted: [B, T] int ids, row by row as long as `clean`.
      attention_mask: [B, T] int or bool, 1 on real tokens; None if all are real.

    Returns:
      [B, T, V] logits. Masks of one give `forward` on the clean prompts; masks of zero,
      the embedding's too, `forward` on the corrupted ones.
    """
    chex.assert_equal_shape([clean, corrupted])
    _, embedding, values = capture(config, params, corrupted, attention_mask)
    residual = masked_residual(config, params, masks, clean, (embedding, values), attention_mask)
    return unembed(config, params, residual)


def at_answer(residual: jax.Array, attention_mask: jax.Array) -> jax.Array:
    """Picks the last real position, the one that predicts the answer.

    Args:
      residual: [B, T, D].
      attention_mask: [B, T], 1 on real tokens.

    Returns:
      [B, D].
    """
    last = attention_mask.astype(jnp.int32).sum(-1) - 1
    return jnp.take_along_axis(residual, last[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def plain_passes(
    config: ModelConfig, params: Params, streams: jax.Array, attention_mask: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, SiteValues]]:
    """Both plain passes in one call: base model on clean text, and the corrupted run.

    The same function on different tokens, hence one `vmap` over the stream axis. Neither
    depends on the masks, so their results may be kept for a whole dataset.

    Args:
      config: the model's shape.
      params: its weights.
      streams: [S=2, B, T] clean and corrupted token ids.
      attention_mask: [B, T], shared by both streams.

    Returns:
      The base model's logits at the answer position [B, V]; the corrupted run's
      embedding [B, T, D] and site values [L, B, T, …].
    """
    chex.assert_shape(streams, (2, *attention_mask.shape))
    run = functools.partial(capture, config, params, attention_mask=attention_mask)
    residual, embedding, values = jax.vmap(run)(streams)
    corrupted = jax.tree.map(lambda leaf: leaf[1], (embedding, values))
    return unembed(config, params, at_answer(residual[0], attention_mask)), corrupted
