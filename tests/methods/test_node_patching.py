"""Node patching: equal to removing nodes one by one, whatever runs together; scores of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    MLP_BLOCKS,
    MLP_HIDDEN,
    MLP_OUTPUT,
)
from mgnp_jax.masks.selection import filled
from mgnp_jax.methods.attribution.config import EapConfig
from mgnp_jax.methods.node_patching import removal
from mgnp_jax.methods.node_patching.config import NodePatchingConfig
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from tests import tiny
from tests.methods.test_resume import discover


def one_by_one(model: mg.Model, batch: mg.Batch, figure: str) -> dict[str, np.ndarray]:
    """The same by a loop that closes one gate at a time."""
    runs = plain_runs(model.config, model.params, batch)

    @jax.jit
    def mean(masks: mg.Masks) -> jax.Array:
        logits = masked_logits(model.config, model.params, masks, runs)
        return FIGURES[figure](logits, runs).mean()

    full = mg.full_masks(model.config)
    whole, found = mean(full), {}
    for name, leaf in full.items():
        found[name] = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            closed = np.ones(leaf.shape, np.float32)
            closed[index] = 0
            found[name][index] = whole - mean(full | {name: jax.device_put(closed)})
    return found


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("gpt2", "score"),
        ("gpt2", "kl"),
        ("llama", "score"),
        ("post-norm", "kl"),
        ("llama", "prob_diff"),
    ],
)
def test_effects_are_those_of_closing_one_gate_at_a_time(
    name: str, figure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model(name)
    batch = tiny.batch(model.config, rows=6, shared=3)
    expected = one_by_one(model, batch, figure)
    compiled = removal._losses._cache_size()  # type: ignore[attr-defined]
    # Neither is divided by them: the last prompts and nodes are filled up.
    monkeypatch.setattr(removal, "PROMPTS_AT_ONCE", 4)
    monkeypatch.setattr(removal, "NODES_AT_ONCE", 7)
    found = removal.effects_of_removal(
        model, batch, mg.GRANULARITIES, FIGURES[figure], lambda record: None, None
    )
    assert removal._losses._cache_size() == compiled + 1  # type: ignore[attr-defined]
    for kind, leaf in expected.items():
        scale = np.abs(leaf).max()
        assert scale > 1e-3
        np.testing.assert_allclose(found[kind] / scale, leaf / scale, atol=2e-5, err_msg=kind)


def test_nodes_that_were_not_removed_have_scores_of_those_around_them() -> None:
    c = tiny.GPT2
    rng = np.random.default_rng(0)
    heads, outputs = rng.random((c.layers, c.heads)), rng.random((c.layers, c.width))
    scores = jax.device_get(filled(c, {ATTENTION_HEADS: heads, MLP_OUTPUT: outputs}))
    heads, outputs = heads.astype(np.float32), outputs.astype(np.float32)
    np.testing.assert_array_equal(scores[ATTENTION_BLOCKS], heads.max(-1))
    np.testing.assert_array_equal(
        scores[ATTENTION_NEURONS], np.repeat(heads[..., None], c.head_width, -1)
    )
    np.testing.assert_array_equal(scores[MLP_BLOCKS], outputs.max(-1))
    np.testing.assert_array_equal(
        scores[MLP_HIDDEN], np.repeat(outputs.max(-1)[:, None], c.mlp_width, -1)
    )
    blocks = {ATTENTION_BLOCKS: rng.random(c.layers), MLP_BLOCKS: rng.random(c.layers)}
    whole = filled(c, {**blocks, MLP_HIDDEN: rng.random((c.layers, c.mlp_width))})
    # What was removed itself keeps its own.
    np.testing.assert_array_equal(whole[MLP_BLOCKS], blocks[MLP_BLOCKS].astype(np.float32))
    assert (np.ptp(np.asarray(whole[ATTENTION_NEURONS]), (1, 2)) == 0).all()


def test_sizes_are_met(tmp_path: Path) -> None:
    model = tiny.model("llama")
    data, key = tiny.data(model.config), jax.random.key(0)
    circuit = mg.discover(key, model, data, NodePatchingConfig(keep=0.5, prompts=4))
    assert int(circuit.masks[ATTENTION_HEADS].sum()) == 6
    assert int(circuit.masks[MLP_HIDDEN].sum()) == 30
    assert int(circuit.at(heads=5).masks[ATTENTION_HEADS].sum()) == 5
    assert mg.circuit_sizes(model.config, circuit.at(edges=40).masks)["edges"]["active"] <= 40
    circuit.save(tmp_path / "like")
    other = NodePatchingConfig(like=tmp_path / "like", signed=True, effect_on="kl")
    again = mg.discover(key, model, data, other)
    sizes = [mg.circuit_sizes(model.config, found.masks)["sizes"] for found in (circuit, again)]
    assert sizes[0] == sizes[1]
    # As many edges as a circuit of edges has: nodes by their counts in it.
    edges = mg.discover(key, model, data, EapConfig(keep=0.3))
    edges.save(tmp_path / "edges")
    mg.discover(key, model, data, NodePatchingConfig(like=tmp_path / "edges"))


def test_a_search_that_was_stopped_goes_on_to_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PROMPTS_AT_ONCE", 4)
    monkeypatch.setattr(removal, "NODES_AT_ONCE", 4)
    config: Any = NodePatchingConfig()
    expected = discover(None, config)
    for after in (1, 5):
        with pytest.raises(KeyboardInterrupt):
            discover(tmp_path, config, stop_after=after)
        assert (tmp_path / f"step-{after:08d}").is_dir()
    records: list[Any] = []
    got = discover(tmp_path, config, said=records)
    assert records[0]["step"] == 6 and records[-1] == {"passing": True, "step": 12, "of": 12}
    assert expected.scores is not None and got.scores is not None
    for name, leaf in expected.scores.items():
        np.testing.assert_array_equal(leaf, got.scores[name])


def test_what_ranks_nothing_is_refused() -> None:
    for names in (("attention_heads",), ("mlp_blocks", "mlp_hidden"), (), ("heads", "mlp_blocks")):
        with pytest.raises(mg.MgnpError, match="both of attention and of MLPs"):
            NodePatchingConfig(granularities=names)
    with pytest.raises(mg.MgnpError, match="prompts must be at least 1"):
        NodePatchingConfig(prompts=0)
    told = "effect_on must be one of score, kl, prob_diff, got 'loss'"
    with pytest.raises(mg.MgnpError, match=told):
        NodePatchingConfig(effect_on="loss")  # type: ignore[arg-type]
