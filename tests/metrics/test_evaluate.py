"""Scores against hand-computed cases, and evaluation of whole splits."""

from __future__ import annotations

import dataclasses
import warnings
from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.metrics.scores import answered_rightly, kl_divergence, same_top_token
from mgnp_jax.passes.cached_runs import CachedRuns, masked_logits, plain_runs
from mgnp_jax.passes.caching import cache_bytes, cache_runs, chunk_rows
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.passes.spans import packed_tokens, spans_of
from mgnp_jax.passes.storage import Place
from mgnp_jax.tasks.metrics import best_difference, logit_difference, probability_difference
from tests import tiny


def test_answer_metrics_by_hand() -> None:
    logits = jnp.log(jnp.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]]))
    answers = mg.Answers(
        tokens=np.array([[0, 2, 1], [3, 0, 0]]),
        signs=np.array([[1.0, -1.0, -1.0], [1.0, -1.0, 0.0]], np.float32),
    )
    difference = logit_difference(logits, answers)
    np.testing.assert_allclose(difference, [np.log(2.5), np.log(6.0)], rtol=1e-5)
    mass = probability_difference(logits, answers)
    np.testing.assert_allclose(mass, [0.5 - 0.2 - 0.2, 0.6 - 0.1], atol=1e-6)
    best = best_difference(logits, answers)
    np.testing.assert_allclose(best, [np.log(2.5), np.log(6.0)], rtol=1e-5)


def test_the_best_right_answer_must_beat_the_best_wrong_one() -> None:
    # Thirteen wrong answers: the right one is above their mean and below the best of them.
    logits = jnp.zeros((2, 14)).at[:, 0].set(1.0).at[0, 5].set(2.0)
    signs = np.tile(np.array([1.0] + [-1.0] * 13, np.float32), (2, 1))
    answers = mg.Answers(tokens=np.tile(np.arange(14), (2, 1)), signs=signs)
    assert (np.asarray(logit_difference(logits, answers)) > 0).all()
    assert answered_rightly(answers, logits).tolist() == [False, True]


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
    right, wrong = batch.targets.scores["score"].answers.tokens.T
    score = np.asarray(circuit[rows, right] - circuit[rows, wrong])
    of_base = np.asarray(base[rows, right] - base[rows, wrong])
    assert figures["score"] == pytest.approx(score.mean(), abs=1e-4)
    assert figures["base_score"] == pytest.approx(of_base.mean(), abs=1e-4)
    assert figures["accuracy"] == pytest.approx((score > 0).mean())
    assert figures["kl"] == pytest.approx(float(kl_divergence(base, circuit).mean()), abs=1e-4)
    assert figures["kl"] > 0.01


def test_a_circuit_of_another_constant_is_refused(tiny_model: mg.Model) -> None:
    masks = mg.full_masks(tiny_model.config)
    other = dataclasses.replace(tiny_model.config, norm_eps=0.1)
    circuit = mg.Circuit(masks=masks, metadata={"config_hash": other.hash(), "model": "theirs"})
    with pytest.raises(mg.MgnpError, match="hash .* another constant of the same shape.*theirs"):
        mg.evaluate(tiny_model, circuit, tiny.batch(tiny_model.config))


def test_batch_size_changes_no_figure(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config, rows=7)
    masks = mg.full_masks(tiny_model.config)
    masks["attention_heads"] = masks["attention_heads"].at[0].set(0)
    sizes = [mg.evaluate(tiny_model, masks, batch, batch_size=n)["kl"] for n in (1, 3, 7, 100)]
    np.testing.assert_allclose(sizes, sizes[0], atol=1e-6)
    assert sizes[0] > 1e-4


@pytest.mark.parametrize("where", ["embeddings", "blocks"])
def test_weights_that_are_not_numbers_give_no_figures(where: str) -> None:
    model = tiny.model("gpt2")
    leaves = jax.tree.map(np.array, dict(model.params))
    first = jax.tree.leaves(leaves[where])[0]
    first.reshape(-1)[-1] = np.nan
    broken = dataclasses.replace(model, params=leaves)
    # NaN in a token's embedding reaches the prompts that have it alone; tied, all logits.
    with pytest.raises(mg.MgnpError, match=rf"row \d of the split.*weights \['{where}'\]"):
        mg.evaluate(broken, mg.full_masks(model.config), tiny.batch(model.config), batch_size=4)


def test_the_first_row_with_no_numbers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    batch = tiny.batch(model.config)
    used = np.asarray(batch.attention_mask)
    token = next(int(t) for t in batch.clean[4][used[4]] if t not in batch.clean[:4])
    params = jax.tree.map(np.array, dict(model.params))
    params["embeddings"]["token"]["embedding"][token] = np.nan
    first = min(
        i for i in range(6) if token in (*batch.clean[i][used[i]], *batch.corrupted[i][used[i]])
    )
    with pytest.raises(mg.MgnpError, match=f"on row {first} of the split"):
        mg.evaluate(
            dataclasses.replace(model, params=params),
            mg.full_masks(model.config, 0.0),
            batch,
            batch_size=2,
        )


def partly(**opened: object) -> mg.Masks:
    """Masks of the tiny GPT-2 in which only what is named is open."""
    masks = mg.full_masks(tiny.GPT2, 0.0)
    return {**masks, **{name: masks[name].at[where].set(1) for name, where in opened.items()}}  # type: ignore[index]


@pytest.mark.parametrize("measured", ["evaluate", "circuit_sizes"])
def test_masks_of_which_the_hierarchy_leaves_nothing_are_refused(measured: str) -> None:
    model, batch = tiny.model("gpt2"), tiny.batch(tiny.GPT2)

    def measure(masks: mg.Masks) -> object:
        if measured == "evaluate":
            return mg.evaluate(model, masks, batch)
        return mg.circuit_sizes(model.config, masks)

    alone = r"4 attention_heads \(they need their attention_blocks and attention_neurons in them\)"
    with pytest.raises(mg.MgnpError, match=f"{alone}. No node is left"):
        measure(partly(attention_heads=0))
    with pytest.raises(mg.MgnpError, match="20 mlp_hidden .*their mlp_blocks and mlp_output besi"):
        measure(partly(mlp_hidden=1))
    # Something acts, and something does not.
    some = {"mlp_blocks": 0, "mlp_hidden": 0, "mlp_output": 0}
    with pytest.warns(UserWarning, match=alone) as said:
        measure(partly(attention_heads=0, **some))
    assert [w.filename for w in said] == [__file__]
    hollow = partly(attention_blocks=0, attention_heads=0, attention_neurons=(0, 1), **some)
    with pytest.warns(UserWarning, match=r": 3 attention_heads \(they need"):
        measure(hollow)
    # Nothing at all, and a head or block that is closed with all in it, is what it says.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(partly())
        measure(partly(**some))
        whole = mg.full_masks(tiny.GPT2)
        measure({**whole, "attention_heads": whole["attention_heads"].at[:, 1].set(0)})
        measure({**whole, "mlp_blocks": whole["mlp_blocks"].at[0].set(0)})


def test_soft_masks_and_foreign_circuits_are_refused(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config)
    with pytest.raises(mg.MgnpError, match="other than 0 and 1"):
        mg.evaluate(tiny_model, mg.full_masks(tiny_model.config, 0.5), batch)
    other = tiny.model("llama" if tiny_model.config.norm == "layer" else "gpt2")
    with pytest.raises(mg.MgnpError, match="do not fit this model"):
        mg.evaluate(tiny_model, mg.full_masks(other.config), batch)


def _with_answer_beyond(batch: mg.Batch) -> mg.Batch:
    answers = batch.targets.answers
    tokens = np.array(answers.tokens)
    tokens[3, 1] = 37
    answers = dataclasses.replace(answers, tokens=tokens)
    return dataclasses.replace(batch, targets=dataclasses.replace(batch.targets, answers=answers))


def test_prompts_that_begin_otherwise_are_refused(tiny_model: mg.Model) -> None:
    batch = tiny.batch(tiny_model.config)
    circuit = mg.Circuit(
        masks=mg.full_masks(tiny_model.config), metadata={"origin": {"prefix": "<s>"}}
    )
    other = dataclasses.replace(batch, prefix="")
    with pytest.raises(mg.MgnpError, match="found on prompts that begin with '<s>', these .* ''"):
        mg.evaluate(tiny_model, circuit, other)
    same = dataclasses.replace(batch, prefix="<s>")
    for measured in (batch, same):
        assert mg.evaluate(tiny_model, circuit, measured)["prompts"] == len(batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.take(slice(0)), "no prompts"),
        (lambda b: b.replace(clean=b.clean + 1000), "vocabulary ends at 36"),
        (
            lambda b: b.replace(corrupted=np.where(b.corrupted == b.corrupted[2, 1], 40, 0)),
            r"the corrupted prompt number \d of a split has token id 40, .* ends at 36",
        ),
        (
            lambda b: b.replace(targets=b.targets.replace(kl_over={"kl_x": np.full((6, 2), 37)})),
            "the answers of 'kl_x' number 0 of a split has token id 37, .*limits=model.config",
        ),
        (_with_answer_beyond, "the answers number 3 of a split has token id 37"),
        (
            lambda b: b.replace(clean=np.zeros((6, 99), np.int32)),
            "99 tokens, the model's context is 16",
        ),
    ],
    ids=["empty", "foreign", "corrupted", "kl-over", "answer", "long"],
)
def test_bad_prompts_are_refused(change: object, message: str) -> None:
    model = tiny.model("gpt2")
    bad = change(tiny.batch(tiny.GPT2))  # type: ignore[operator]
    with pytest.raises(mg.MgnpError, match=message):
        mg.evaluate(model, mg.full_masks(model.config), bad)


@pytest.mark.parametrize("place", get_args(Place))
@pytest.mark.parametrize("share", [False, True])
def test_kept_streams_are_those_of_single_batches(
    tiny_model: mg.Model, place: Place, share: bool
) -> None:
    c, p = tiny_model.config, tiny_model.params
    batch = tiny.batch(c, rows=7, shared=2)
    where = spans_of(batch, share_prefix=share)
    whole = cache_runs(c, p, batch, 3, where, place=place)
    rows = np.array([5, 2])
    part = plain_runs(c, p, batch.take(rows), share_prefix=share)
    assert isinstance(part.corrupted, CorruptedRun) and isinstance(whole.corrupted, CorruptedRun)
    taken = whole.take(where.select(rows, where.sizes([rows])))
    assert isinstance(taken.corrupted, CorruptedRun)
    used = np.asarray(part.layout.used)
    np.testing.assert_array_equal(used, taken.layout.used)
    np.testing.assert_array_equal(taken.clean[used], part.clean[used])
    tiny.assert_near(taken.base_logits, part.base_logits)
    values, expected = (
        jax.tree.map(lambda leaf: np.asarray(leaf)[:, used], x.corrupted.values)
        for x in (taken, part)
    )
    tiny.assert_near(values, expected, rtol=1e-6)
    a, b = (np.asarray(x.corrupted.embedding)[used] for x in (taken, part))
    tiny.assert_near(a, b)
    # The prefix's arrays are as long as the longest of the split's, then of the batch's.
    width = part.layout.prefix.shape[1]
    mask = np.asarray(part.layout.prefix)
    for a, b in zip(taken.corrupted.prefix[0], part.corrupted.prefix[0]):
        tiny.assert_near(np.asarray(a)[:, :, :width][:, mask], b[:, mask])
    arrays = (whole.base_logits, whole.corrupted)
    assert cache_bytes(c, where) == sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


@pytest.mark.parametrize("name", tiny.each_family("gpt2", "llama", "gemma2"))
def test_shared_prefixes_and_lockstep_change_no_logit_and_no_gradient(name: str) -> None:
    c, p = tiny.model(name).config, tiny.model(name).params
    batch = tiny.batch(c, rows=5, shared=3)
    rng = np.random.default_rng(0)
    masks = {
        name: jnp.asarray(rng.uniform(size=(c.layers, 5, *leaf.shape[1:])[: 1 + leaf.ndim]))
        for name, leaf in mg.full_masks(c).items()
    }
    masks = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), masks)
    packed = plain_runs(c, p, batch)
    assert packed.layout.prefix.shape[1] == 3
    plain = plain_runs(c, p, batch, share_prefix=False)
    clean, corrupted = packed_tokens(batch, plain.layout)
    beside = dataclasses.replace(plain, clean=clean, corrupted=corrupted)  # type: ignore[type-var]

    def logits(masks: mg.Masks, streams: CachedRuns, remat: bool) -> tuple[jax.Array, jax.Array]:
        out = masked_logits(c, p, masks, streams, remat=remat)
        return jnp.square(out).sum(), out

    run = jax.jit(jax.value_and_grad(logits, has_aux=True), static_argnums=2)
    expected = run(masks, plain, False)
    for streams, remat in ((packed, False), (packed, True), (beside, False), (beside, True)):
        chex.assert_trees_all_close(run(masks, streams, remat), expected, rtol=1e-4, atol=1e-5)


def test_each_prompt_has_its_own_gates(tiny_model: mg.Model) -> None:
    c, p, batch = tiny_model.config, tiny_model.params, tiny.batch(tiny_model.config, rows=2)
    one, zero = mg.full_masks(c, 1.0, embedding=True), mg.full_masks(c, 0.0, embedding=True)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b], axis=min(a.ndim, 1)), one, zero)
    streams = plain_runs(c, p, batch)
    together = masked_logits(c, p, both, streams)
    tiny.assert_near(together[0], masked_logits(c, p, one, streams)[0])
    tiny.assert_near(together[1], masked_logits(c, p, zero, streams)[1])


def test_chunks_have_one_length_and_cover_every_row_once() -> None:
    pieces = list(chunk_rows(7, 3))
    assert [len(rows) for rows, _ in pieces] == [3, 3, 3]
    assert np.concatenate([rows[:real] for rows, real in pieces]).tolist() == list(range(7))
    assert [(rows.tolist(), real) for rows, real in chunk_rows(2, 5)] == [([0, 1], 2)]
