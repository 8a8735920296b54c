"""What heads look at, what nodes write, what drives neurons: against plain computations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.attention import (
    PATTERN_BYTES,
    kinds_of_positions,
    patterns_of,
    strongest_heads,
)
from mgnp_jax.evidence.chunks import Progress, Split
from mgnp_jax.evidence.reading import Neurons, read_clean, read_whole
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_HIDDEN
from mgnp_jax.passes.attribution import clean_embedding
from mgnp_jax.passes.cached_runs import both_runs
from mgnp_jax.passes.embeddings import read_normed, unembed
from mgnp_jax.passes.layer_steps import Layer
from mgnp_jax.passes.node_forward import capture
from mgnp_jax.passes.packing import pack
from mgnp_jax.passes.precision import exact
from tests import tiny
from tests.evidence.conftest import LITTLE
from tests.evidence.test_effects import CONFIG, EXACT, EXPLAINED, batch, evidence, some_nodes


@exact
def plain_attention(model: mg.Model, tokens: np.ndarray) -> np.ndarray:
    """[L, H, T, T] of one prompt, head by head in NumPy."""
    c, length = model.config, len(tokens)
    layout = pack(np.array([length]), np.array([0]))
    run = jax.jit(capture, static_argnums=0)(c, model.params, tokens, layout)
    written = np.asarray(run.values.attn_out + run.values.mlp_out)
    streams = np.asarray(run.embedding)[None] + np.concatenate(
        [np.zeros_like(written[:1]), np.cumsum(written, 0)]
    )
    found = np.zeros((c.layers, c.heads, length, length))
    for layer in range(c.layers):
        weights = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.params["blocks"])
        q, k, _ = Layer(c, weights).qkv(layout, jnp.asarray(streams[layer]))
        for head in range(c.heads):
            of = head // (c.heads // c.kv_heads)
            scores = np.asarray(q)[:, head] @ np.asarray(k)[:, of].T / np.sqrt(c.head_width)
            scores[np.triu_indices(length, 1)] = -np.inf
            chances = np.exp(scores - scores.max(1, keepdims=True))
            found[layer, head] = chances / chances.sum(1, keepdims=True)
    return found


def test_patterns_are_those_of_a_plain_computation() -> None:
    name = "llama"
    model, found = tiny.model(name), evidence(name)
    heads = found.patterns["heads"]
    kept = np.argwhere(np.asarray(some_nodes(model)[ATTENTION_HEADS]))
    assert heads == kept.tolist()
    b = batch(model).take(slice(CONFIG.examples))
    for row in range(len(b)):
        length = int(b.attention_mask[row].sum())
        for run, tokens in (("clean", b.clean), ("corrupted", b.corrupted)):
            expected = plain_attention(model, tokens[row, :length])
            got = found.patterns[run][row]
            for slot, (layer, head) in enumerate(heads):
                one = got[slot, :length, :length] / 255
                np.testing.assert_allclose(one, expected[layer, head], atol=0.51 / 255)
            assert not got[:, length:].any() and not got[:, :, length:].any()
        for run in ("clean", "corrupted", "circuit"):
            rows = found.patterns[run][row][:, :length].astype(int).sum(-1)
            np.testing.assert_allclose(rows / 255, 1, atol=0.51 * length / 255)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_patterns_in_the_whole_and_in_the_empty_circuit(value: float) -> None:
    model = tiny.model("llama")
    masks: Any = mg.full_masks(model.config, 1.0, embedding=True)
    masks["embedding"] = masks["embedding"] * value
    if not value:
        # All but one head, which is in the last layer and reads what the corrupted run has.
        masks = jax.tree.map(np.zeros_like, masks)
        masks[ATTENTION_HEADS][-1, 0] = masks["attention_blocks"][-1] = 1
        masks["attention_neurons"][-1, 0] = 1
    masks = {name: np.asarray(mask, bool) for name, mask in masks.items()}
    some, heads = batch(model).take(slice(3)), np.argwhere(masks[ATTENTION_HEADS])
    found = patterns_of(model, masks, Split(some, LITTLE, None), heads)
    like = found["clean" if value else "corrupted"].astype(int)
    assert like.size and np.abs(found["circuit"].astype(int) - like).max() <= 1
    assert (found["clean"] != found["corrupted"]).any()


def test_attention_to_kinds_of_positions() -> None:
    model = tiny.model("gpt2")
    b = batch(model)
    # The right answer stands twice in the first prompt, the wrong one once in the second.
    b.clean[0, 1] = b.clean[0, 2] = b.targets.answers.tokens[0, 0]
    b.clean[1, 2] = b.targets.answers.tokens[1, 1]
    kinds = kinds_of_positions(b)
    assert kinds["to_answer"][0, 1:3].all() and not kinds["to_answer"].all()
    assert kinds["to_repeated"][0, 1:3].all() and kinds["to_wrong_answer"][1, 2]
    last = np.asarray(b.attention_mask).sum(1) - 1
    assert (kinds["to_previous"].argmax(1) == last - 1).all()
    none = Neurons(np.zeros(0, int), np.zeros(0, int))
    found = read_whole(model, b, none, LITTLE, Progress(0, lambda record: None))
    patterns = [plain_attention(model, b.clean[row, : last[row] + 1]) for row in range(len(b))]
    for name, kind in kinds.items():
        rows = np.flatnonzero(kind.any(1))
        expected = np.mean(
            [(patterns[r][:, :, -1] * kind[r, : last[r] + 1]).sum(-1) for r in rows], axis=0
        )
        np.testing.assert_allclose(found.attends[name], expected, atol=1e-5, err_msg=name)


class Parts:
    """What the residual stream at the answer position is made of, in NumPy."""

    def __init__(self, model: mg.Model, b: mg.Batch) -> None:
        """Runs both plain passes."""
        self.c, self.params = model.config, model.params
        self.runs, self.clean = both_runs(self.c, model.params, b)
        self.answers = np.asarray(self.runs.layout.answers)
        embedding = np.asarray(clean_embedding(self.c, model.params, self.runs))
        written = np.asarray(self.clean.attn_out + self.clean.mlp_out).sum(0)
        self.whole = (embedding + written)[self.answers]

    def frozen(self, part: np.ndarray) -> np.ndarray:
        """[..., B, D] after the final norm, its scale that of the whole stream, bias aside."""
        whole = self.whole
        if self.c.norm == "layer":
            part, whole = (x - x.mean(-1, keepdims=True) for x in (part, whole))
        scale = 1 / np.sqrt(np.square(whole).mean(-1, keepdims=True) + self.c.norm_eps)
        return part * scale * self.scale_of(self.params["embeddings"]["norm"])

    def scale_of(self, norm: Any) -> np.ndarray:
        """[..., D] what a norm multiplies by."""
        return np.asarray(norm["scale"]) + self.c.norm_offset

    def after_norm(self, part: np.ndarray, name: str, projected: Any) -> np.ndarray:
        """[L, ·, B, D] after the norm that follows, its scale that of the whole [L, K, D]."""
        if projected is None:
            return part
        whole = np.asarray(projected)[:, self.answers]
        scale = 1 / np.sqrt(np.square(whole).mean(-1, keepdims=True) + self.c.norm_eps)
        weights = self.scale_of(self.params["blocks"][name])
        return part * (scale * weights[:, None])[:, None]

    def logits(self, normed: np.ndarray) -> np.ndarray:
        return np.asarray(read_normed(self.c, self.params, jnp.asarray(normed, jnp.float32)))


def right_minus_wrong(b: mg.Batch, logits: np.ndarray) -> np.ndarray:
    """[..., B] of [..., B, V]."""
    rows, (right, wrong) = np.arange(len(b)), np.asarray(b.targets.answers.tokens).T
    return logits[..., rows, right] - logits[..., rows, wrong]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "gemma3_text", "olmo2"])
def test_parts_of_the_logits_add_up_to_the_score(name: str) -> None:
    model = tiny.model(name)
    b, c = batch(model), model.config
    parts = Parts(model, b)
    ones = np.ones(len(b), np.float32)
    found = jax.device_get(read_clean(model, parts.runs, parts.clean, ones))["direct"]
    total = found["embedding"] + found["heads"].sum() + found["mlps"].sum()
    if c.attention_bias:
        # Attention's biases are no head's, nor is the final norm's.
        biases = np.asarray(model.params["blocks"]["attention"]["o"]["bias"]).sum(0)
        shared = np.asarray(model.params["embeddings"]["norm"]["bias"])
        normed = parts.frozen(np.tile(biases, (len(b), 1))) + shared
        total += right_minus_wrong(b, parts.logits(normed)).sum()
    score = right_minus_wrong(b, np.asarray(parts.runs.base_logits)).sum()
    np.testing.assert_allclose(total, score, rtol=1e-4)
    if not c.mlp_bias:
        np.testing.assert_allclose(found["hidden"].sum(1), found["mlps"], rtol=1e-3, atol=1e-4)


def test_neurons_are_driven_by_their_largest_activations() -> None:
    model, found = tiny.model("llama"), evidence("llama")
    b = batch(model).take(slice(CONFIG.prompts))
    lengths = np.asarray(b.attention_mask).sum(1)
    values = []
    for row, length in zip(b.clean, lengths):
        layout = pack(np.array([length]), np.array([0]))
        run = jax.jit(capture, static_argnums=0)(model.config, model.params, row[:length], layout)
        values.append(np.asarray(run.values.mlp_hidden))
    assert len(found.drivers) == CONFIG.neurons
    for layer, neuron, listed in found.drivers:
        assert np.isfinite(found.removal[MLP_HIDDEN]["score"][layer, neuron])
        best = [np.abs(v[layer, :, neuron]).max() for v in values]
        assert [each[0] for each in listed] == np.argsort(best)[::-1][: len(listed)].tolist()
        for prompt, position, activation in listed:
            got = values[prompt][layer, position, neuron]
            np.testing.assert_allclose(activation, got, atol=1e-5)
            assert abs(got) == pytest.approx(best[prompt])


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_is_written_is_the_mean_output_through_the_unembedding(name: str) -> None:
    model, found = tiny.model(name), evidence(name)
    c, b = model.config, batch(model).take(slice(CONFIG.prompts))
    parts = Parts(model, b)
    blocks = jax.tree.map(np.asarray, model.params["blocks"])
    out = blocks["attention"]["o"]["kernel"].reshape(c.layers, c.heads, c.head_width, c.width)
    z = np.asarray(parts.clean.attn_z)[:, parts.answers]
    hidden = np.asarray(parts.clean.mlp_hidden)[:, parts.answers]
    written = {
        ATTENTION_HEADS: parts.after_norm(
            np.einsum("lbhe,lhed->lhbd", z, out), "attention_post_norm", parts.clean.attn_projected
        ),
        MLP_HIDDEN: parts.after_norm(
            np.einsum("lbf,lfd->lfbd", hidden, blocks["mlp"]["down"]["kernel"]),
            *("mlp_post_norm", parts.clean.mlp_projected),
        ),
    }
    for kind, each in written.items():
        normed, listed = parts.frozen(each), found.writes[kind]
        direct = right_minus_wrong(b, parts.logits(normed)).mean(-1)
        there = ~np.isnan(listed["direct"])
        np.testing.assert_allclose(listed["direct"][there], direct[there], atol=1e-4)
        logits = parts.logits(normed.mean(-2))
        assert len(listed["towards"]) == (c.layers * c.heads if "heads" in kind else EXACT)
        for (layer, at, up), (_, _, down) in zip(listed["towards"], listed["away"]):
            own = np.sort(logits[layer, at])
            np.testing.assert_allclose([v for _, v in up], own[::-1][: len(up)], atol=1e-4)
            np.testing.assert_allclose([v for _, v in down], own[: len(down)], atol=1e-4)
            # Its text is the number where a model has no tokenizer.
            got = [logits[layer, at, int(token)] for token, _ in (*up, *down)]
            np.testing.assert_allclose(got, [v for _, v in (*up, *down)], atol=1e-4)
    assert there.any() and not there.all()


def test_the_lens_ends_at_the_scores() -> None:
    model, found = tiny.model("llama"), evidence("llama")
    b = batch(model).take(slice(CONFIG.prompts))
    parts = Parts(model, b)
    for of in ("model", "circuit"):
        last = {name: float(leaf[-1]) for name, leaf in found.lens[of].items()}
        assert last["score"] == pytest.approx(found.scores[of]["score"], abs=1e-4)
    logits = np.asarray(parts.runs.base_logits)
    right = np.asarray(b.targets.answers.tokens)[:, 0]
    ranks = [int((row > row[r]).sum()) + 1 for row, r in zip(logits, right)]
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    lens = found.lens["model"]
    assert float(lens["answer_rank"][-1]) == pytest.approx(np.mean(ranks))
    chance = chances[np.arange(len(b)), right].mean()
    assert float(lens["answer_probability"][-1]) == pytest.approx(chance, rel=1e-4)
    embedded = unembed(
        model.config, model.params, clean_embedding(model.config, model.params, parts.runs)
    )
    first = right_minus_wrong(b, np.asarray(embedded)[parts.answers]).mean()
    assert float(lens["score"][0]) == pytest.approx(first, abs=1e-4)


def test_patterns_are_bounded_where_prompts_are_long() -> None:
    sizes = np.full((4, 8), np.nan)
    sizes[1] = np.arange(8) - 4.5
    assert strongest_heads(sizes, 64, 8, 20).tolist() == [[1, h] for h in range(8)]
    assert strongest_heads(sizes, 2, 8, 20).tolist() == [[1, 0], [1, 1]]
    long = int((PATTERN_BYTES / (3 * 8 * 3.5)) ** 0.5)
    assert len(strongest_heads(sizes, 64, 8, long)) == 3
    assert len(strongest_heads(sizes, 64, 8, 10**5)) == 1
