"""What the benchmark times: models of random weights, prompts, and their multiply-adds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mgnp_jax as mg
from mgnp_jax.models.layers import sealed
from mgnp_jax.models.segments import narrowed, plan
from mgnp_jax.models.weights import param_shapes
from mgnp_jax.train.compaction import Compaction

SHAPES = {
    "gpt2-tiny-random": (2, 64, 4, 500),
    "gpt2-small-random": (12, 768, 12, 50_257),
    "gpt2-medium-random": (24, 1024, 16, 50_257),
    "gpt2-large-random": (36, 1280, 20, 50_257),
    "gpt2-xl-random": (48, 1600, 25, 50_257),
}
"""Layers, width, heads and vocabulary of GPT-2's sizes, and of one for tests."""


def load(name: str) -> mg.Model:
    """A real model, or one of random weights and GPT-2's shape.

    Args:
      name: as on the command line.
    """
    if name not in SHAPES:
        return mg.load_model(name)
    layers, width, heads, vocabulary = SHAPES[name]
    config = mg.ModelConfig(
        family="gpt2",
        vocab_size=vocabulary,
        context=1024,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        mlp_width=4 * width,
        activation="gelu_new",
        norm_eps=1e-5,
        tied=True,
    )
    rng = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for path, shape in param_shapes(config).items():
        value = 0.02 * rng.standard_normal(shape, np.float32)
        *folders, leaf = path.split("/")
        inner = params
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = jnp.asarray(value + 1 if leaf == "scale" else value)
    return mg.Model(name=name, config=config, params=params, tokenizer=None)


def task_prompts(task: str, model: mg.Model) -> mg.Batch:
    """A task's training prompts.

    Args:
      task: its name.
      model: whose tokenizer writes them; gpt2-mini's if it has none.
    """
    tokenizer = model.tokenizer or mg.load_model("gpt2-mini").tokenizer
    return mg.load_task(task, tokenizer, seed=0).train


def random_prompts(rows: int, tokens: int) -> mg.Batch:
    """Random prompts of one length, which differ from the third token on.

    Args:
      rows: how many.
      tokens: of each.
    """
    rng = np.random.default_rng(0)
    clean, corrupted = rng.integers(0, 300, (2, rows, tokens), np.int32)
    corrupted[:, :2] = clean[:, :2]
    corrupted[:, 2] = clean[:, 2] + 1
    readout = mg.Readout(
        tokens=np.tile(np.array([[1, 2]], np.int32), (rows, 1)),
        weights=np.tile(np.array([[1.0, -1.0]], np.float32), (rows, 1)),
        kind="logits",
    )
    return mg.Batch(
        clean=clean,
        corrupted=corrupted,
        attention_mask=np.ones(clean.shape, bool),
        readouts={"score": readout},
    )


def multiply_adds(config: mg.ModelConfig, params: mg.Params, batch: mg.Batch) -> float:
    """Multiply-adds of one forward pass on real tokens, per prompt.

    Args:
      config: the model's shape.
      params: its weights; matrices of the blocks act on every token.
      batch: prompts.
    """
    per_token = sum(leaf.size for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim == 3)
    lengths = np.asarray(batch.attention_mask).sum(1)
    # Queries times keys, weights times values; each position sees those up to itself.
    attention = config.layers * config.heads * config.head_width * lengths * (lengths + 1)
    return float((per_token * lengths + attention).mean()) + config.vocab_size * config.width


def closed_for_good(model: mg.Model, share: float, dtype: str) -> Compaction:
    """A model of which a random share of each layer's heads and hidden neurons is left out.

    Args:
      model: the model.
      share: in [0, 1).
      dtype: of the weights.
    """
    rng = np.random.default_rng(0)
    c = model.config

    def left(width: int) -> np.ndarray:
        row = np.arange(width) >= round(share * width)
        return rng.permuted(np.tile(row, (c.layers, 1)), axis=1)

    heads, hidden = left(c.heads), left(c.mlp_width)
    chosen = plan(c, heads.sum(1), hidden.sum(1))
    everything = mg.full_masks(c)
    kept = {name: jnp.ones(leaf.shape, bool) for name, leaf in everything.items()}
    kept |= {"attention_heads": jnp.asarray(heads), "mlp_hidden": jnp.asarray(hidden)}
    params = sealed(model.params, dtype)
    return Compaction(segments=narrowed(c, params, chosen, heads, hidden), open=kept)
