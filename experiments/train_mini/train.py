"""Trains the embedded default model, gpt2-mini, from nothing.

    python -m experiments.train_mini --out DIR

A GPT-2 of 4 layers × 8 heads learns the paper's three tasks in template English with a
word-level vocabulary. The prompts of `load_task(..., seed=0)`, all splits, are never
trained on; the weights that are shipped were trained when pronouns were drawn otherwise, so
88 of its 378 test prompts were open to their training. To keep the pronoun task learnable
with most of its prompts held out, what gender a name has is also told in sentences that are
in no task. About 12 minutes on two busy cores; one seed, so the same machine gives the same
weights.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families.gpt2 import GPT2
from mgnp_jax.models.hub import Model
from mgnp_jax.models.weights import init_params
from mgnp_jax.passes.embeddings import unembed
from mgnp_jax.passes.node_forward import capture
from mgnp_jax.passes.packing import whole_grid
from mgnp_jax.tasks import TASKS, gendered_pronouns, greater_than, ioi, words
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Task, distinct_pairs
from mgnp_jax.types import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENDER_SENTENCES = (
    ("When {name} came home,", " he", " she"),
    ("Everyone says that {name} is happy, and that", " he", " she"),
    ("At the end of the day {name} was tired, so", " he", " she"),
)
# Words are kept with their leading space, numbers in pairs of digits, as GPT-2 has them.
WORD = r" ?[A-Za-z']+| ?\d\d|[^\w\s]"


LEARNT = tuple(TASKS[name] for name in ("ioi", "gt", "gp"))
"""The paper's tasks, of whose prompts of seed 0 none is trained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainMiniConfig:
    """Trains gpt2-mini and writes it in Hugging Face layout."""

    out: Path
    """Folder for config.json, model.safetensors and the tokenizer."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 64
    """Prompts a step."""
    learning_rate: float = 2e-3
    """Peak of AdamW's step size; warmed up over 100 steps, then cosine to zero."""
    prompt_weight: float = 0.1
    """Weight of predicting the prompt's own words, beside the answer."""
    smoothing: float = 0.01
    """Share of each target spread over the vocabulary; keeps logit differences near those
    of a real language model instead of growing without end."""
    head_cost: float = 0.02
    """Weight of what heads write, each head's length summed, so that a head writes only
    where it is of use and a task's circuit is smaller than the model."""
    neuron_cost: float = 0.001
    """The same for what MLP neurons write."""
    seed: int = 0
    """Of weights and prompts."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose vocabulary is what the three tasks can say."""
    # Imported here: before a command has begun, its first words are that PyTorch is missing.
    from transformers import PreTrainedTokenizerFast

    fillers = {
        "object": words.OBJECTS,
        "place": words.PLACES,
        "event": words.EVENTS,
        "year": [f"{c}{y:02d}" for c in greater_than.CENTURIES for y in range(100)],
        **dict.fromkeys(("A", "B", "S", "name"), words.GIRLS + words.BOYS),
    }
    texts = [
        *ioi.FRAMES,
        *greater_than.TEMPLATES,
        *gendered_pronouns.TEMPLATES,
        *(sentence for sentence, _, _ in GENDER_SENTENCES),
    ]
    found = {" he", " she"}
    for text in texts:
        found |= set(re.findall(WORD, re.sub(r"\{\w+\}", "\n", text)))
        for slot in re.findall(r" ?\{\w+\}", text):
            for word in fillers.get(slot.strip(" {}"), []):
                found |= set(re.findall(WORD, slot[: slot.index("{")] + word))
    vocabulary = {token: i for i, token in enumerate(["<|unk|>", *sorted(found)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|unk|>", clean_up_tokenization_spaces=False
    )


def texts(rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """Endless sentences, a quarter of each task and a quarter of the gender sentences."""
    held_out = {pair.clean for task in LEARNT for pair in distinct_pairs(task, tokenizer, 0)}

    def again_and_again(task: Task) -> Iterator[PromptPair]:
        while True:
            yield from task.pairs(rng, tokenizer)

    streams = [again_and_again(task) for task in LEARNT]
    while True:
        for pairs in streams:
            pair = next(p for p in pairs if p.clean not in held_out)
            yield pair.clean + str(rng.choice(list(pair.answers)))
        sentence, he, she = GENDER_SENTENCES[rng.integers(len(GENDER_SENTENCES))]
        names, pronoun = ((words.BOYS, he), (words.GIRLS, she))[rng.integers(2)]
        yield sentence.format(name=rng.choice(names)) + pronoun


def loss_fn(
    params: Params,
    shape: ModelConfig,
    tokens: jax.Array,
    lengths: jax.Array,
    config: TrainMiniConfig,
) -> jax.Array:
    """Smoothed cross-entropy of the last word, plus a part of that of all words, in nats."""
    inputs = tokens[:, :-1]
    layout = whole_grid(jnp.ones(inputs.shape, bool))
    run = capture(shape, params, inputs.reshape(-1), layout)
    residual = run.residual.reshape(*inputs.shape, -1)
    targets = jax.nn.one_hot(tokens[:, 1:], shape.vocab_size)
    targets = optax.smooth_labels(targets, config.smoothing)
    loss = optax.softmax_cross_entropy(unembed(shape, params, residual), targets)
    position = jnp.arange(loss.shape[1])[None]
    real = (position < lengths[:, None] - 1).astype(loss.dtype)
    answer = (position == lengths[:, None] - 2).astype(loss.dtype)
    everywhere = (loss * real).sum() / real.sum()
    projection = params["blocks"]["attention"]["o"]["kernel"]
    rows = projection.reshape(shape.layers, shape.heads, shape.head_width, shape.width)
    written = jnp.einsum("lkhe,lhed->lkhd", run.values.attn_z, rows)
    # The small constant keeps the length's slope finite where a head writes nothing.
    length = jnp.sqrt(jnp.square(written).sum(-1) + 1e-6).sum((0, 2))
    outgoing = jnp.linalg.norm(params["blocks"]["mlp"]["down"]["kernel"], axis=-1)
    neurons = jnp.einsum("lkf,lf->k", jnp.abs(run.values.mlp_hidden), outgoing)
    length, neurons = (cost.reshape(inputs.shape) for cost in (length, neurons))
    return (
        (loss * answer).sum() / answer.sum()
        + config.prompt_weight * everywhere
        + config.head_cost * (length * real).sum() / real.sum()
        + config.neuron_cost * (neurons * real).sum() / real.sum()
    )


def train(config: TrainMiniConfig) -> Model:
    """Trains the model.

    Args:
      config: how long and how.

    Returns:
      The model, named gpt2-mini.
    """
    tokenizer = make_tokenizer()
    shape = GPT2.read_config(
        {
            "vocab_size": len(tokenizer),
            "n_positions": 64,
            "n_embd": 128,
            "n_layer": 4,
            "n_head": 8,
        }
    )
    rng = np.random.default_rng(config.seed)
    stream = texts(rng, tokenizer)
    params = init_params(jax.random.key(config.seed), shape)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(100, config.steps // 10), config.steps
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, tokens: jax.Array, lengths: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss_fn)(params, shape, tokens, lengths, config)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    longest = 32
    for i in track(range(config.steps), "Training gpt2-mini"):
        rows = tokenizer([next(stream) for _ in range(config.batch_size)])["input_ids"]
        lengths = np.array([len(row) for row in rows])
        tokens = np.array([row + [0] * (longest - len(row)) for row in rows])
        params, state, value = step(params, state, tokens, lengths)
        if i % 100 == 0 or i == config.steps - 1:
            print(f"step {i} loss {float(value):.4f}", flush=True)
    return Model(name="gpt2-mini", config=shape, params=params, tokenizer=tokenizer)
