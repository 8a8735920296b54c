"""What the benchmark times: models of random weights, prompts, and their multiply-adds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mgnp_jax as mg
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_HIDDEN
from mgnp_jax.models.families.gpt2 import GPT2
from mgnp_jax.models.weights import param_shapes
from mgnp_jax.passes.compaction import Compaction, compacted, plan_for
from mgnp_jax.passes.precision import in_precision
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.types import Score, Targets

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
    config = GPT2.read_config(
        {
            "vocab_size": vocabulary,
            "n_positions": 1024,
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
        }
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
    answers = mg.Answers(
        tokens=np.tile(np.array([[1, 2]], np.int32), (rows, 1)),
        signs=np.tile(np.array([[1.0, -1.0]], np.float32), (rows, 1)),
    )
    score = Score(answers=answers, metric=logit_difference)
    return mg.Batch(
        clean=clean,
        corrupted=corrupted,
        attention_mask=np.ones(clean.shape, bool),
        targets=Targets(answers=answers, scores={"score": score}),
    )


def multiply_adds(model_config: mg.ModelConfig, params: mg.Params, batch: mg.Batch) -> float:
    """Multiply-adds of one forward pass on real tokens, per prompt.

    Args:
      model_config: the model's shape.
      params: its weights; matrices of the blocks act on every token.
      batch: prompts.
    """
    per_token = sum(leaf.size for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim == 3)
    lengths = np.asarray(batch.attention_mask).sum(1)
    # Queries times keys, weights times values; each position sees those up to itself.
    c = model_config
    attention = c.layers * c.heads * c.head_width * lengths * (lengths + 1)
    return float((per_token * lengths + attention).mean()) + c.vocab_size * c.width


def closed_for_good(model: mg.Model, share: float, discover: mg.DiscoverConfig) -> Compaction:
    """A model of which a random share of each layer's heads and hidden neurons is left out.

    Args:
      model: the model.
      share: in [0, 1).
      discover: how it is run.
    """
    rng = np.random.default_rng(0)
    c = model.config

    def left(width: int) -> np.ndarray:
        row = np.arange(width) >= round(share * width)
        return rng.permuted(np.tile(row, (c.layers, 1)), axis=1)

    kept = {name: np.ones(leaf.shape, bool) for name, leaf in mg.full_masks(c).items()}
    kept |= {ATTENTION_HEADS: left(c.heads), MLP_HIDDEN: left(c.mlp_width)}
    _, params = in_precision(c, model.params, discover.execution.precision)
    chosen = plan_for(c, kept, discover.execution.max_segments)
    return compacted(c, params, chosen, kept)
