"""One run for every size on models small enough that the best circuit of each size is known.

With gates of first order for the heads; those of the default are a little farther from the best on
such models, whose heads differ by two from one to the next (experiments/LOG.md).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning.prices import Nesting, Penalties
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from tests import tiny

NOTHING = dict.fromkeys((f.name for f in dataclasses.fields(Penalties)), 0.0)

KINDS = {
    "attention_heads": ("attention", "o"),
    "attention_neurons": ("attention", "o"),
    "mlp_hidden": ("mlp", "down"),
    "mlp_output": ("mlp", "down"),
}
"""Where the model has the weights with which these nodes write."""


def config(kinds: Sequence[str], span: float) -> mg.DiscoverConfig:
    """One price for all nodes, as far apart as what their loss costs, which is compared here."""
    return mg.DiscoverConfig(
        nested=True,
        nesting=Nesting(least=1 / span, most=span),
        penalties=Penalties(**NOTHING | dict.fromkeys(kinds, 0.01)),
        granularities=tuple(kinds),
        gates="first_order",
        steps=400,
        batch_size=10,
        validate_every=400,
        score_weight=0.0,
        softened_weight=0.0,
    )


def planted(
    seed: int, kinds: Sequence[str], each: int, weaker: float
) -> tuple[mg.Model, dict[str, np.ndarray]]:
    """A model of which a few nodes write, each so many times weaker than the one before.

    Returns:
      It, and by granularity where the few are among all of the model's [each].
    """
    model, rng = tiny.model("gpt2"), np.random.default_rng(seed)
    params = jax.tree.map(np.array, model.params)
    ranks, places = rng.permutation(len(kinds) * each).reshape(-1, each), {}
    for kind, rank in zip(kinds, ranks, strict=True):
        layers, *shape = mg.full_masks(model.config)[kind].shape
        strength = np.zeros(layers * math.prod(shape), np.float32)
        places[kind] = np.sort(rng.permutation(strength.size)[:each])
        strength[places[kind]] = weaker**-rank
        (part, name), strength = KINDS[kind], strength.reshape(layers, -1)
        kernel = params["blocks"][part][name]["kernel"]
        if kind == "mlp_output":
            kernel *= strength[:, None]
        else:
            kernel *= strength.repeat(kernel.shape[1] // strength.shape[1], axis=1)[..., None]
    return dataclasses.replace(model, params=params), places


def losses_of_all(
    model: mg.Model, train: mg.Batch, places: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Every set of the few [2^N, N], and its circuit's KL [2^N] on the training prompts.

    In double precision: without its weakest head the model is 6e-9 nats from itself, of which
    single precision's sums make figures below zero.
    """
    runs = plain_runs(model.config, model.params, train)
    count = sum(where.size for where in places.values())
    sets = np.array(list(itertools.product((0.0, 1.0), repeat=count)), np.float32)

    def logits(of_all: jax.Array) -> jax.Array:
        masks = mg.full_masks(model.config)
        parts = jnp.split(of_all, len(places))
        for (kind, where), part in zip(places.items(), parts, strict=True):
            masks[kind] = masks[kind].ravel().at[where].set(part).reshape(masks[kind].shape)
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


def best_of_sizes(sets: np.ndarray, losses: np.ndarray) -> Iterator[np.ndarray]:
    """The best set of each size [N], of one node first; all of them are no choice."""
    for size in range(1, sets.shape[1]):
        of_size = sets.sum(-1) == size
        yield sets[of_size][losses[of_size].argmin()]


@pytest.mark.parametrize("seed", range(2))
def test_the_best_circuit_of_every_number_of_heads_is_found(seed: int) -> None:
    kinds, data = ("attention_heads",), tiny.data(tiny.GPT2)
    model, places = planted(seed, kinds, tiny.GPT2.layers * tiny.GPT2.heads, 2.0)
    circuit = mg.discover(jax.random.key(seed), model, data, config(kinds, 256.0))
    bests = best_of_sizes(*losses_of_all(model, data.train, places))
    for size, best in enumerate(bests, start=1):
        found = np.asarray(circuit.at(heads=size).masks["attention_heads"])
        np.testing.assert_array_equal(found.ravel(), best)


@pytest.mark.parametrize(
    ("kinds", "each"),
    [
        (("attention_neurons",), 6),
        (("mlp_hidden",), 6),
        (("mlp_output",), 6),
        (("attention_heads", "mlp_hidden"), 3),
    ],
)
def test_the_few_that_write_come_first_the_best_of_each_size(kinds: Any, each: int) -> None:
    data = tiny.data(tiny.GPT2)
    model, places = planted(0, kinds, each, 4.0)
    circuit = mg.discover(jax.random.key(0), model, data, config(kinds, 16384.0))
    assert circuit.log_alpha is not None
    own = {kind: np.ravel(circuit.log_alpha[kind]) for kind in kinds}
    few = np.concatenate([own[kind][places[kind]] for kind in kinds])
    for kind in kinds:
        assert np.delete(own[kind], places[kind]).max() < few.min()
    bests = best_of_sizes(*losses_of_all(model, data.train, places))
    for size, best in enumerate(bests, start=1):
        np.testing.assert_array_equal(few >= np.sort(few)[-size], best)
