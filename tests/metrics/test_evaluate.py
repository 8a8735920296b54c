"""Scores against hand-computed cases, and evaluation of whole splits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.metrics.scores import kl_divergence, read, same_top_token
from mgnp_jax.metrics.streams import chunk_rows, prepare, run_streams, stream_bytes
from tests import tiny


def test_readouts_by_hand() -> None:
    logits = jnp.log(jnp.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]]))
    tokens = np.array([[0, 2, 1], [3, 0, 0]])
    weights = np.array([[1.0, -0.5, -0.5], [1.0, -1.0, 0.0]], np.float32)
    difference = read(mg.Readout(tokens=tokens, weights=weights, kind="logits"), logits)
    np.testing.assert_allclose(difference, [np.log(2.5), np.log(6.0)], rtol=1e-5)
    mass = read(mg.Readout(tokens=tokens, weights=weights, kind="probabilities"), logits)
    np.testing.assert_allclose(mass, [0.5 - 0.1 - 0.1, 0.6 - 0.1], rtol=1e-5)


def test_kl_is_of_the_model_to_the_circuit_in_nats() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.7, 0.2, 0.1]])
    expected = (p * np.log(p / q)).sum()
    got = kl_divergence(jnp.log(p) + 3.0, jnp.log(q))
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    assert abs(float(kl_divergence(jnp.log(q), jnp.log(p))[0]) - expected) > 1e-3
    np.testing.assert_allclose(kl_divergence(jnp.log(p), jnp.log(p)), [0.0], atol=1e-7)


def test_same_top_token() -> None:
    base = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_array_equal(same_top_token(base, base[::-1]), [False, False])
    np.testing.assert_array_equal(same_top_token(base, base * 3), [True, True])


def test_the_whole_model_is_a_perfect_circuit(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config, rows=10)
    figures = mg.evaluate(tiny_model, mg.full_masks(tiny_model.config), batch, batch_size=4)
    assert figures["prompts"] == 10
    assert figures["kl"] == pytest.approx(0, abs=1e-6)
    assert figures["exact_match"] == 1.0
    assert figures["score"] == pytest.approx(figures["base_score"], abs=1e-5)
    assert 0 < figures["base_accuracy"] < 1
    assert figures["answered"]["base_accuracy"] == 1.0
    assert figures["answered"]["prompts"] == round(10 * figures["base_accuracy"])


def test_figures_are_those_of_a_plain_computation(tiny_model: mg.Model) -> None:
    c, p = tiny_model.config, tiny_model.params
    batch = tiny.batch(c, rows=7)
    rng = np.random.default_rng(0)
    masks = {k: jnp.asarray(rng.random(m.shape) < 0.7) for k, m in mg.full_masks(c).items()}
    figures = mg.evaluate(tiny_model, masks, batch, batch_size=3)
    last = np.asarray(batch.attention_mask).sum(-1) - 1
    rows = np.arange(7)
    circuit = mg.two_stream_forward(
        c, p, masks, batch.clean, batch.corrupted, batch.attention_mask
    )[rows, last]
    base = mg.forward(c, p, batch.clean, batch.attention_mask)[rows, last]
    right, wrong = batch.readouts["score"].tokens.T
    score = np.asarray(circuit[rows, right] - circuit[rows, wrong])
    of_base = np.asarray(base[rows, right] - base[rows, wrong])
    assert figures["score"] == pytest.approx(score.mean(), abs=1e-4)
    assert figures["base_score"] == pytest.approx(of_base.mean(), abs=1e-4)
    assert figures["accuracy"] == pytest.approx((score > 0).mean())
    assert figures["kl"] == pytest.approx(float(kl_divergence(base, circuit).mean()), abs=1e-4)
    assert figures["kl"] > 0.01


def test_batch_size_changes_no_figure(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config, rows=7)
    masks = mg.full_masks(tiny_model.config)
    masks["attention_heads"] = masks["attention_heads"].at[0].set(0)
    sizes = [mg.evaluate(tiny_model, masks, batch, batch_size=n)["kl"] for n in (1, 3, 7, 100)]
    np.testing.assert_allclose(sizes, sizes[0], atol=1e-6)
    assert sizes[0] > 1e-4


def test_soft_masks_and_foreign_circuits_are_refused(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config)
    with pytest.raises(mg.MgnpError, match="other than 0 and 1"):
        mg.evaluate(tiny_model, mg.full_masks(tiny_model.config, 0.5), batch)
    other = tiny.model("llama" if tiny_model.config.family == "gpt2" else "gpt2")
    with pytest.raises(mg.MgnpError, match="do not fit this model"):
        mg.evaluate(tiny_model, mg.full_masks(other.config), batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.take(slice(0)), "no prompts"),
        (lambda b: b.replace(clean=b.clean + 1000), "vocabulary ends at 36"),
        (
            lambda b: b.replace(clean=np.zeros((6, 99), np.int32)),
            "99 tokens, the model's context is 16",
        ),
    ],
    ids=["empty", "foreign", "long"],
)
def test_bad_prompts_are_refused(change: object, message: str) -> None:
    model = tiny.model("gpt2")
    bad = change(tiny.batch(tiny.GPT2))  # type: ignore[operator]
    with pytest.raises(mg.MgnpError, match=message):
        mg.evaluate(model, mg.full_masks(model.config), bad)


def test_kept_streams_are_those_of_single_batches(tiny_model: mg.Model) -> None:
    c, p = tiny_model.config, tiny_model.params
    batch = tiny.batch(c, rows=7)
    whole = prepare(c, p, batch, 3)
    part = run_streams(c, p, batch.take(np.array([5, 2])))
    taken = whole.take(jnp.array([5, 2]))
    np.testing.assert_allclose(taken.base_logits, part.base_logits, atol=1e-5)
    for a, b in zip(
        (taken.corrupted[0], taken.corrupted[1].mlp_hidden),
        (part.corrupted[0], part.corrupted[1].mlp_hidden),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    arrays = (whole.base_logits, whole.corrupted)
    assert stream_bytes(c, batch) == sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


def test_chunks_have_one_length_and_cover_every_row_once() -> None:
    pieces = list(chunk_rows(7, 3))
    assert [len(rows) for rows, _ in pieces] == [3, 3, 3]
    assert np.concatenate([rows[:real] for rows, real in pieces]).tolist() == list(range(7))
    assert [(rows.tolist(), real) for rows, real in chunk_rows(2, 5)] == [([0, 1], 2)]
