"""One run for every size on models small enough that the best circuit of each size is known.

With gates of first order for the heads; those of the default are a little farther from the best on
such models, whose heads differ by two from one to the next (experiments/LOG.md).
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning.prices import Nesting, Penalties
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from tests import tiny

HEADS = tiny.GPT2.layers * tiny.GPT2.heads

NOTHING = dict.fromkeys((f.name for f in dataclasses.fields(Penalties)), 0.0)

CONFIG = mg.DiscoverConfig(
    nested=True,
    # Prices as far apart as what the heads' loss costs, which is what is compared here.
    nesting=Nesting(least=1 / 256, most=256.0),
    penalties=Penalties(**NOTHING | {"attention_heads": 0.01}),
    granularities=("attention_heads",),
    gates="first_order",
    steps=400,
    batch_size=10,
    validate_every=400,
    score_weight=0.0,
    softened_weight=0.0,
)


def planted(seed: int) -> mg.Model:
    """A model whose heads write half as strongly from one to the next, in an order of chance."""
    model = tiny.model("gpt2")
    rank = np.random.default_rng(seed).permutation(HEADS)
    strength = np.float32(2.0) ** -rank.reshape(tiny.GPT2.layers, tiny.GPT2.heads)
    params = jax.tree.map(np.array, model.params)
    written = params["blocks"]["attention"]["o"]
    written["kernel"] *= strength.repeat(tiny.GPT2.head_width, axis=1)[..., None]
    return dataclasses.replace(model, params=params)


def losses_of_all(model: mg.Model, train: mg.Batch) -> tuple[np.ndarray, np.ndarray]:
    """Every set of heads [2^H, H], and its circuit's KL [2^H] on the training prompts.

    In double precision: without its weakest head the model is 6e-9 nats from itself, of which
    single precision's sums make figures below zero.
    """
    runs = plain_runs(model.config, model.params, train)
    sets = np.array(list(itertools.product((0.0, 1.0), repeat=HEADS)), np.float32)

    def logits(heads: jax.Array) -> jax.Array:
        ones = mg.full_masks(model.config)
        masks = ones | {"attention_heads": heads.reshape(ones["attention_heads"].shape)}
        return masked_logits(model.config, model.params, masks, runs)

    every = jax.jit(lambda sets: jax.lax.map(logits, sets, batch_size=256))
    base, log_p = log_probabilities(runs.base_logits), log_probabilities(every(sets))
    losses = (np.exp(base) * (base - log_p)).sum(-1).mean(-1)
    assert (losses >= 0).all()
    return sets, losses


def log_probabilities(logits: jax.Array) -> np.ndarray:
    """Of each token [..., V], in double precision."""
    exact = np.asarray(logits, np.float64)
    return exact - np.logaddexp.reduce(exact, axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", range(2))
def test_the_best_circuit_of_every_size_is_found(seed: int) -> None:
    model, data = planted(seed), tiny.data(tiny.GPT2)
    sets, losses = losses_of_all(model, data.train)
    circuit = mg.discover(jax.random.key(seed), model, data, CONFIG)
    # Nothing kept and everything kept are no choice.
    for size in range(1, HEADS):
        of_size = sets.sum(-1) == size
        best = sets[of_size][losses[of_size].argmin()]
        found = np.asarray(circuit.at(heads=size).masks["attention_heads"])
        np.testing.assert_array_equal(found.ravel(), best)
