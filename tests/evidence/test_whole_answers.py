"""Evidence of circuits on whole answers: a pair's rows, wherever they are cut, are the pair."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.chunks import Load, Progress
from mgnp_jax.evidence.reading import Neurons, read_whole
from mgnp_jax.masks.edges import Q_EDGES, full_edges
from tests.tasks.test_whole_answers import pairs_of


@pytest.mark.parametrize("level", ["nodes", pytest.param("edges", marks=pytest.mark.full)])
def test_evidence_has_the_figures_of_evaluate(mini: mg.Model, level: str) -> None:
    data = mg.from_pairs(mini.tokenizer, pairs_of(), answer="whole")
    masks = mg.full_masks(mini.config)
    masks["attention_heads"] = masks["attention_heads"].at[0, 2:].set(0)
    if level == "edges":
        masks = full_edges(mini.config)
        masks[Q_EDGES] = masks[Q_EDGES].at[1:].set(0)
    config = mg.ExplainConfig(neurons=2, heads=1, examples=9, prompts=3)
    found = mg.explain(mini, masks, data.test, config)
    figures = mg.evaluate(mini, masks, data.test.of_pairs(slice(3)))
    assert found.prompts_used == 3 and len(found.driver_prompts) == 21
    for name in ("score", "kl", "accuracy"):
        assert found.scores["circuit"][name] == pytest.approx(figures[name], abs=1e-3), name
    for name in ("score", "accuracy"):
        assert found.scores["model"][name] == pytest.approx(figures[f"base_{name}"], abs=1e-3)
    last = {name: leaf[-1] for name, leaf in found.lens["model"].items()}
    assert last["score"] == pytest.approx(figures["base_score"], abs=1e-3)
    assert 0 < last["answer_probability"] <= 1 and 1 <= last["answer_rank"] < 100
    # A head that leaves leaves what is measured without it.
    if level == "nodes":
        less = {**masks, "attention_heads": masks["attention_heads"].at[0, 0].set(0)}
        without = mg.evaluate(mini, less, data.test.of_pairs(slice(3)))
        for name in ("score", "kl"):
            change = found.removal["attention_heads"][name][0, 0]
            assert change == pytest.approx(without[name] - figures[name], abs=2e-3), name


def test_what_neurons_write_is_a_mean_over_pairs(mini: mg.Model) -> None:
    # One pair is read in three rows, the others in one.
    pairs = pairs_of(((" {a}",), (" {b}",)), more=1)
    pairs[4] = dataclasses.replace(pairs[4], answers=[" the park day"])
    batch = mg.from_pairs(mini.tokenizer, pairs, answer="whole").test
    assert [*batch.pair_of_row] == [0, 0, 0, 1]
    neurons = Neurons(np.array([0, 2]), np.array([3, 5]))

    def normed(batch: mg.Batch) -> np.ndarray:
        load = Load(bytes=2**30, prompts=2, forward=2, nodes=1)
        return read_whole(mini, batch, neurons, load, Progress(0, lambda record: None)).normed

    each = [normed(batch.of_pairs(slice(i, i + 1))) for i in range(2)]
    size = float(np.abs(each).max())
    np.testing.assert_allclose(normed(batch), np.mean(each, 0), atol=1e-5 * size)


@pytest.mark.full
def test_evidence_of_answers_of_one_token_is_that_of_single(mini: mg.Model) -> None:
    masks = mg.full_masks(mini.config)
    masks["attention_heads"] = masks["attention_heads"].at[0, 2:].set(0)
    config = mg.ExplainConfig(neurons=2, heads=1, examples=2, prompts=3)
    pairs = pairs_of(((" {a}", " Anna"), (" {b}", " the")))
    single, whole = (
        mg.explain(
            mini, masks, mg.from_pairs(mini.tokenizer, pairs, answer=answer).test, config
        ).as_page()
        for answer in ("single", "whole")
    )
    for name in ("scores", "removal", "addition", "positions", "attends", "lens", "writes"):
        one, other = (jax.tree.leaves(each[name]) for each in (single, whole))
        assert len(one) == len(other) > 0
        for a, b in zip(one, other):
            assert a == b if isinstance(a, str) else a == pytest.approx(b, rel=2e-3, abs=1e-3), name
    assert single["examples"] == whole["examples"]
