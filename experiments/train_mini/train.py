"""Trains the embedded default model, gpt2-mini, from nothing.

    python -m experiments.train_mini --out DIR

A GPT-2 of 4 layers × 8 heads is taught all built-in tasks with a word-level vocabulary by texts of
its own (`texts`), none of which has a prompt of any task and seed in it. Costs gather each task in
few heads; they come late, so that what takes several layers is learnt before.
One seed, so the same machine gives the same weights.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict
from optax.contrib import MuonDimensionNumbers
from rich.progress import track

from experiments.train_mini.initial import initial
from experiments.train_mini.rows import Rows, batches
from experiments.train_mini.tokenizer import make_tokenizer
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families.gpt2 import GPT2
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_forward import capture
from mgnp_jax.passes.packing import whole_grid
from mgnp_jax.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainMiniConfig:
    """Trains gpt2-mini and writes it in Hugging Face layout."""

    out: Path
    """Folder for config.json, model.safetensors and the tokenizer."""
    steps: int = 5000
    """Optimiser steps."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 0.015
    """Peak of Muon's step size, for the blocks' matrices; warmed up over 100 steps, then cosine
    to zero."""
    other_learning_rate: float = 2.5e-3
    """The same of Adam's, for embeddings, biases and norms."""
    weight_decay: float = 0.2
    """Of the blocks' matrices, times the step size. Without it they grow until every head
    attends to one place, and what takes two of them is not found any more."""
    first: float = 0.1
    """Part of the steps whose long texts are `texts.FIRST`."""
    second: float = 0.3
    """Part of them after which long texts are `texts.LONG`; `texts.SECOND` between the two."""
    prompt_weight: float = 0.1
    """Weight of predicting the prompt's own words, beside the answer."""
    smoothing: float = 0.01
    """Share of each target spread over the vocabulary; keeps logit differences near those
    of a real language model instead of growing without end."""
    head_cost: float = 0.01
    """Weight of what heads write, each head's length summed, so that a head writes only
    where it is of use and a task's circuit is smaller than the model."""
    neuron_cost: float = 0.0005
    """The same for what MLP neurons write."""
    costs_grow: tuple[float, float] = (0.75, 0.9)
    """Parts of the steps between which these costs grow from nothing to their full weight; from
    the first step on they would keep heads from finding what takes two of them."""
    seed: int = 0
    """Of weights and texts."""


def _costs(
    params: Params, shape: ModelConfig, rows: Rows, config: TrainMiniConfig, price: jax.Array
) -> tuple[jax.Array, ...]:
    """Sums over rows: of answers, of all words, of what heads and neurons write."""
    inputs = rows.tokens[:, :-1]
    run = capture(shape, params, inputs.reshape(-1), whole_grid(jnp.ones(inputs.shape, bool)))
    logits = unembed(shape, params, run.residual.reshape(*inputs.shape, -1))
    logs = jax.nn.log_softmax(logits)
    right = jnp.take_along_axis(logs, rows.tokens[:, 1:, None], -1)[..., 0]
    loss = -(1 - config.smoothing) * right - config.smoothing * logs.mean(-1)
    projection = params["blocks"]["attention"]["o"]["kernel"]
    kernel = projection.reshape(shape.layers, shape.heads, shape.head_width, shape.width)
    written = jnp.einsum("lkhe,lhed->lkhd", run.values.attn_z, kernel)
    # The small constant keeps the length's slope finite where a head writes nothing.
    heads = jnp.sqrt(jnp.square(written).sum(-1) + 1e-6).sum((0, 2))
    outgoing = jnp.linalg.norm(params["blocks"]["mlp"]["down"]["kernel"], axis=-1)
    neurons = jnp.einsum("lkf,lf->k", jnp.abs(run.values.mlp_hidden), outgoing)
    cost = price * (config.head_cost * heads + config.neuron_cost * neurons)
    cost = cost.reshape(inputs.shape)
    return (loss * rows.answers).sum(), (loss * rows.real).sum(), (cost * rows.real).sum()


def loss_fn(
    params: Params,
    shape: ModelConfig,
    batch: tuple[Rows, Rows],
    config: TrainMiniConfig,
    price: jax.Array,
) -> jax.Array:
    """Smoothed cross-entropy of answers, a part of that of all words, and the costs, in nats.

    Args:
      params: of the model.
      shape: of it.
      batch: short and long texts.
      config: weights of the parts.
      price: [] of the costs, from 0 to 1.
    """
    parts = [_costs(params, shape, rows, config, price) for rows in batch]
    answers, everywhere, cost = (sum(part) for part in zip(*parts))
    weight: Any = sum(rows.answers.sum() for rows in batch)
    real: Any = sum(rows.real.sum() for rows in batch)
    return answers / weight + (config.prompt_weight * everywhere + cost) / real


def optimiser(config: TrainMiniConfig) -> optax.GradientTransformation:
    """Muon for the blocks' matrices, each layer's apart, and Adam for all else.

    Args:
      config: step sizes, steps and weight decay.
    """

    def rate(peak: float) -> optax.Schedule:
        warmup = min(100, config.steps // 10)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps)

    def matrices(params: Any) -> Any:
        kinds = {
            path: MuonDimensionNumbers(1, 2) if path[-1] == "kernel" else None
            for path in flatten_dict(params)
        }
        return unflatten_dict(kinds)

    muon = optax.contrib.muon(
        rate(config.learning_rate),
        weight_decay=config.weight_decay,
        adam_b2=0.95,
        adam_learning_rate=rate(config.other_learning_rate),
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def train(config: TrainMiniConfig) -> Model:
    """Trains the model.

    Args:
      config: how long and how.

    Returns:
      The model, named gpt2-mini.
    """
    tokenizer = make_tokenizer()
    raw = {"n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 8}
    shape = GPT2.read_config({"vocab_size": len(tokenizer), **raw})
    params: Params = initial(jax.random.key(config.seed), shape, tokenizer)
    tx = optimiser(config)
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, batch: tuple[Rows, Rows], price: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss_fn)(params, shape, batch, config, price)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    stream_of = batches(
        np.random.default_rng(config.seed),
        tokenizer,
        config.batch_size,
        round(config.first * config.steps),
        round(config.second * config.steps),
    )
    first, last = (part * config.steps for part in config.costs_grow)
    for i in track(range(config.steps), "Training gpt2-mini"):
        price = np.float32(np.clip((i - first) / (last - first), 0, 1))
        params, state, value = step(params, state, next(stream_of), price)
        if i % 100 == 0 or i == config.steps - 1:
            print(f"step {i} loss {float(value):.4f}", flush=True)
    return Model(name="gpt2-mini", config=shape, params=params, tokenizer=tokenizer)
