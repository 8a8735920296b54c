"""What is said of a task and a circuit that mean nothing."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import existing, full_edges
from mgnp_jax.masks.levels import EDGE
from mgnp_jax.metrics import sanity
from mgnp_jax.metrics.sanity import check_circuit, check_controls, check_task
from tests import tiny


def answered(model: mg.Model, batch: mg.Batch, hits: int) -> mg.Batch:
    """The prompts with answers of which the model gives so many rightly."""
    last = np.asarray(batch.attention_mask).sum(1) - 1
    logits = np.asarray(mg.forward(model.config, model.params, batch.clean, batch.attention_mask))
    order = logits[np.arange(len(batch)), last].argsort(-1)
    tokens = order[:, [-1, 0]].astype(np.int32)
    tokens[hits:] = tokens[hits:, ::-1]
    signs = np.tile(np.array([1.0, -1.0], np.float32), (len(batch), 1))
    answers = mg.Answers(tokens=tokens, signs=signs)
    score = dataclasses.replace(batch.targets.scores["score"], answers=answers)  # type: ignore[type-var]
    targets = batch.targets.replace(answers=answers, scores={"score": score})  # type: ignore[attr-defined]
    return batch.replace(targets=targets)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rows", "hits", "said"),
    [
        (40, 40, []),
        (40, 34, []),
        (
            40,
            22,
            ["The model answers 22 of 40 prompts rightly, and by chance it would be 50%: it h"],
        ),
        (40, 1, ["The model answers 1 of 40 prompts rightly, and by chance .* may be swapped"]),
        # So few say nothing.
        (3, 1, []),
        (3, 0, []),
        (8, 0, ["may be swapped"]),
    ],
)
def test_a_task_that_the_model_cannot_do(rows: int, hits: int, said: list[str]) -> None:
    model = tiny.model("gpt2")
    batch = answered(model, tiny.batch(model.config, rows=rows), hits)
    found = check_task(model, batch)
    assert len(found) == len(said), found
    assert all(re.search(pattern, text) for text, pattern in zip(found, said)), found


def test_a_corruption_that_changes_nothing() -> None:
    model = tiny.model("gpt2")
    batch = answered(model, tiny.batch(model.config, rows=16), 16)
    assert check_task(model, batch) == []
    corrupted = np.array(batch.corrupted)
    corrupted[5] = batch.clean[5]
    one = batch.replace(corrupted=corrupted)  # type: ignore[attr-defined]
    (said,) = check_task(model, one)
    assert said.startswith("In 1 of 16 pairs the corrupted prompt is the clean one")
    # Other words, to which the model is blind: their embeddings are those of the clean ones.
    twin = jax.tree.map(np.array, dict(model.params))
    table = twin["embeddings"]["token"]["embedding"]
    table[1::2] = table[0:-1:2]
    blind = dataclasses.replace(model, params=twin)
    clean = np.minimum(np.asarray(batch.clean) // 2 * 2, 34)
    pairs = batch.replace(clean=clean, corrupted=clean + 1)  # type: ignore[attr-defined]
    (said,) = check_task(blind, answered(blind, pairs, 16))
    assert said.startswith("In 16 of 16 pairs the model answers the corrupted prompt as it answers")


def test_a_model_that_gives_no_numbers_is_refused_before_the_search() -> None:
    model = tiny.model("llama")
    params = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), dict(model.params))
    with pytest.raises(mg.MgnpError, match="on row 0 of the split"):
        check_task(dataclasses.replace(model, params=params), tiny.batch(model.config))


def test_a_circuit_that_is_nothing_or_everything() -> None:
    config = tiny.GPT2
    (said,) = check_circuit(mg.circuit_sizes(config, mg.full_masks(config, 0.0)))
    assert said.startswith("Nothing is kept")
    (said,) = check_circuit(mg.circuit_sizes(config, mg.full_masks(config)))
    assert said.startswith("Hardly anything is pruned")
    half = mg.full_masks(config)
    half["mlp_blocks"] = half["mlp_blocks"].at[1:].set(0)
    assert check_circuit(mg.circuit_sizes(config, half)) == []
    # Few edges go through all nodes, one through none.
    edges = {n: np.zeros(e.shape, bool) for n, e in existing(config).items()}
    assert check_circuit(mg.circuit_sizes(config, jax.device_put(edges)), EDGE)
    edges["logits_edges"][0] = True
    assert check_circuit(mg.circuit_sizes(config, jax.device_put(edges)), EDGE) == []
    (said,) = check_circuit(mg.circuit_sizes(config, full_edges(config)), EDGE)
    assert said.startswith("Hardly anything is pruned")


def test_nothing_is_said_of_a_built_in_task(mini: mg.Model) -> None:
    # The one with a hundred answers, about half of them right.
    data = mg.load_task("gt", mini.tokenizer, seed=0)
    assert check_task(mini, data.validation) == []


def test_long_prompts_are_looked_at_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("gpt2")
    batch = tiny.batch(model.config, rows=20)
    expected = check_task(model, batch)
    sizes: list[int] = []
    real = sanity.cache_logits

    def watched(*args: Any) -> np.ndarray:
        sizes.append(args[-1])
        return real(*args)

    monkeypatch.setattr(sanity, "cache_logits", watched)
    monkeypatch.setattr("mgnp_jax.passes.caching.CHUNK_BYTES", 10_000)
    assert check_task(model, batch) == expected
    assert sizes[0] < 5


def test_a_circuit_that_is_worse_than_the_rest_is_said() -> None:
    def beside(own: float, rest: float) -> list[str]:
        return check_controls({"circuit": {"kl": own}, "complement": {"kl": rest}})

    assert beside(0.1, 0.1) == beside(0.1, 2.0) == []
    (said,) = beside(0.5028, 0.2903)
    assert "(KL 0.29)" in said and "(0.503)" in said
