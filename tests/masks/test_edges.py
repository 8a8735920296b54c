"""The edge graph: its size, its names, what dangles, and what it has in common with nodes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import (
    edge_names,
    edges_between,
    heads_used,
    nodes_within,
    without_dangling,
)
from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    edge_count,
    existing,
    full_edges,
    writer_names,
)
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_BLOCKS, mask_shapes
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.masks.levels import EDGE, NODE, check_masks, level_of
from tests import tiny

GPT2_SMALL = dataclasses.replace(
    tiny.GPT2, layers=12, heads=12, kv_heads=12, width=768, head_width=64, mlp_width=3072
)
SMOLLM2 = dataclasses.replace(
    tiny.LLAMA, layers=30, heads=9, kv_heads=3, width=576, head_width=64, mlp_width=1536
)


def some_nodes(model_config: mg.ModelConfig, seed: int = 0) -> mg.Masks:
    rng = np.random.default_rng(seed)
    shapes = mask_shapes(model_config)
    nodes = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    for name in (ATTENTION_HEADS, MLP_BLOCKS):
        nodes[name] = rng.random(shapes[name]) < 0.6
    return apply_hierarchy(jax.device_put(nodes))


@pytest.mark.parametrize(("model_config", "count"), [(GPT2_SMALL, 32_491), (SMOLLM2, 70_651)])
def test_published_counts(model_config: mg.ModelConfig, count: int) -> None:
    there = existing(model_config)
    assert edge_count(there) == count
    assert mg.circuit_sizes(model_config, mg.full_masks(model_config))["edges"]["active"] == count
    # Everything leads from the input to the logits.
    assert edge_count(without_dangling(there)) == count


def test_names_are_the_fields() -> None:
    names = list(edge_names(GPT2_SMALL, existing(GPT2_SMALL)))
    assert len(set(names)) == len(names) == 32_491
    for name in ("input->a0.h0<q>", "a0.h0->a1.h3<q>", "a0.h11->m0", "m0->a1.h0<v>"):
        assert name in names
    assert {"input->logits", "m11->logits"} <= set(names)
    assert "m0->a0.h0<q>" not in names and "a0.h0->a0.h1<k>" not in names
    assert writer_names(GPT2_SMALL)[:2] == ["input", "a0.h0"]
    # With grouped queries a key is named after the first head that reads by it.
    grouped = list(edge_names(SMOLLM2, existing(SMOLLM2)))
    assert "input->a0.h3<k>" in grouped and "input->a0.h4<k>" not in grouped
    assert "input->a0.h4<q>" in grouped


def test_a_shared_key_is_named_after_a_head_that_is_in_the_circuit() -> None:
    nodes: Any = {name: np.zeros(shape, bool) for name, shape in mask_shapes(SMOLLM2).items()}
    for name, *place in (("attention_heads", 1, 4), ("attention_heads", 1, 5), ("mlp_blocks", 0)):
        nodes[name][tuple(place)] = True
    nodes["attention_blocks"][1] = True
    nodes["attention_neurons"][1, 4:6] = nodes["mlp_hidden"][0] = nodes["mlp_output"][0] = True
    masks = edges_between(SMOLLM2, nodes)
    heads = [f"a1.h{h}<q>" for h in (4, 5)]
    read = [*heads, "a1.h4<k>", "a1.h4<v>", "logits"]
    wanted = {f"{writer}->{reader}" for writer in ("input", "m0") for reader in read}
    wanted |= {"input->m0", "a1.h4->logits", "a1.h5->logits"}
    assert set(edge_names(SMOLLM2, masks)) == wanted


@pytest.mark.parametrize(
    "model_config", [tiny.PARALLEL, tiny.FAMILIES["gpt_neox"], tiny.FAMILIES["gptj"]]
)
def test_where_both_read_the_same_stream_heads_do_not_feed_their_mlp(
    model_config: mg.ModelConfig,
) -> None:
    names = set(edge_names(model_config, existing(model_config)))
    assert "a0.h0->m0" not in names and "a0.h0->m1" in names


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_nodes_to_edges_and_back(name: str) -> None:
    model_config = tiny.CONFIGS[name]
    nodes = some_nodes(model_config)
    edges = edges_between(model_config, nodes)
    assert edge_count(edges) == mg.circuit_sizes(model_config, nodes)["edges"]["active"] > 10
    back = nodes_within(model_config, edges)
    for kind in nodes:
        np.testing.assert_array_equal(back[kind], nodes[kind], err_msg=kind)
    assert heads_used(edges) == int(nodes[ATTENTION_HEADS].sum())


def test_dangling_edges_go_whichever_end_hangs() -> None:
    model_config = tiny.GPT2
    kept = {name: np.zeros_like(e) for name, e in existing(model_config).items()}
    writers = writer_names(model_config)
    at = writers.index
    # input → a0.h1 → m1 → logits leads through.
    kept[Q_EDGES][0, 1, at("input")] = True
    kept[MLP_EDGES][1, at("a0.h1")] = True
    kept[LOGITS_EDGES][at("m1")] = True
    through = {name: mask.copy() for name, mask in kept.items()}
    # Nothing reads a1.h0; a2.h2 reads nothing but a1.h3, which reads nothing.
    kept[K_EDGES][1, 0, at("input")] = True
    kept[K_EDGES][2, 2, at("a1.h3")] = True
    kept[LOGITS_EDGES][at("a2.h2")] = True
    found = without_dangling(kept)
    for name in kept:
        np.testing.assert_array_equal(found[name], through[name], err_msg=name)


def test_a_key_is_kept_while_any_head_of_its_group_is() -> None:
    model_config = tiny.LLAMA
    kept = {name: np.zeros_like(e) for name, e in existing(model_config).items()}
    kept[K_EDGES][0, 1, 0] = True
    kept[LOGITS_EDGES][1 + 3] = True
    assert edge_count(without_dangling(kept)) == 2
    kept[LOGITS_EDGES][1 + 3] = False
    kept[LOGITS_EDGES][1 + 1] = True
    assert edge_count(without_dangling(kept)) == 0


def test_levels_are_told_apart_and_checked() -> None:
    model_config = tiny.GPT2
    edges = full_edges(model_config)
    assert level_of(edges) is EDGE and level_of(mg.full_masks(model_config)) is NODE
    check_masks(model_config, edges)
    with pytest.raises(mg.MgnpError, match="q_edges: the masks have .*, the model wants"):
        check_masks(model_config, {**edges, Q_EDGES: edges[Q_EDGES][:, :1]})
    later = {**edges, Q_EDGES: jax.numpy.ones_like(edges[Q_EDGES])}
    with pytest.raises(mg.MgnpError, match="edges from nodes that write later"):
        check_masks(model_config, later)


def test_random_and_left_out_edges() -> None:
    model_config = tiny.LLAMA
    kept = edges_between(model_config, some_nodes(model_config))
    left: Any = EDGE.complement(model_config, kept)
    drawn: Any = EDGE.random(jax.random.key(0), model_config, kept)
    there = existing(model_config)
    for name in kept:
        assert not (np.asarray(left[name]) & np.asarray(kept[name])).any()
        np.testing.assert_array_equal(np.asarray(left[name]) | np.asarray(kept[name]), there[name])
        assert int(drawn[name].sum()) == int(kept[name].sum())
        assert not np.asarray(drawn[name])[~there[name]].any()
    assert any((np.asarray(drawn[n]) != np.asarray(kept[n])).any() for n in HEAD_EDGES)


def test_an_edge_circuit_is_saved_and_measured(tmp_path: Any) -> None:
    model = tiny.model("llama")
    masks = edges_between(model.config, some_nodes(model.config))
    there = existing(model.config).items()
    scores = jax.device_put({n: np.where(e, np.float32(1), -np.inf) for n, e in there})
    circuit = mg.Circuit(masks=masks, scores=scores, metadata={})
    circuit.save(tmp_path / "c")
    again = mg.load_circuit(tmp_path / "c")
    for name in masks:
        np.testing.assert_array_equal(again.masks[name], masks[name])
    batch = tiny.batch(model.config)
    assert mg.evaluate(model, again, batch) == mg.evaluate(model, circuit, batch)
    nodes = mg.evaluate(model, some_nodes(model.config), batch)
    assert mg.evaluate(model, circuit, batch)["kl"] == pytest.approx(nodes["kl"], abs=1e-5)
    with pytest.raises(mg.MgnpError, match="masks k_edges has the shape"):
        wrong = {**masks, K_EDGES: masks[K_EDGES][..., :3]}
        mg.Circuit(masks=wrong, metadata={}).save(tmp_path / "d")
