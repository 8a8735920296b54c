"""Circuits in EAP-IG's files: there and back exactly, and as upstream writes and reads them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import edge_names, edges_between
from mgnp_jax.masks.edges import (
    K_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    Q_EDGES,
    V_EDGES,
    edge_count,
    existing,
    full_edges,
    writer_names,
)
from tests import tiny
from tests.masks.test_edges import some_nodes

FORMS = ["json", "pt"]
CONFIGS = {"gpt2": tiny.GPT2, "llama": tiny.LLAMA, "parallel": tiny.PARALLEL}
ONE = dataclasses.replace(tiny.GPT2, layers=1, heads=2, kv_heads=2)
"""Small enough for its 13 edges to be written by hand."""


def wanted(form: str) -> str:
    """A form of files, whose test is left out where PyTorch is missing."""
    if form == "pt":
        pytest.importorskip("torch")
    return form


def ranked(model_config: mg.ModelConfig, seed: int = 0) -> mg.Circuit:
    """A circuit of edges with signed scores, and edges that lead nowhere."""
    rng = np.random.default_rng(seed)
    masks, scores = {}, {}
    for name, there in existing(model_config).items():
        masks[name] = there & (rng.random(there.shape) < 0.3)
        drawn = rng.standard_normal(there.shape).astype(np.float32)
        scores[name] = np.where(there, drawn, np.float32(-np.inf))
    return mg.Circuit(masks=jax.device_put(masks), scores=jax.device_put(scores), metadata={})


def through(circuit: mg.Circuit, model_config: mg.ModelConfig, file: Path) -> mg.Circuit:
    mg.export_mib(circuit, model_config, file)
    return mg.import_mib(file, model_config)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_edges_come_back_exactly(name: str, form: str, tmp_path: Path) -> None:
    model_config = CONFIGS[name]
    circuit = ranked(model_config)
    again = through(circuit, model_config, tmp_path / f"c.{wanted(form)}")
    chex.assert_trees_all_equal(again.masks, circuit.masks)
    chex.assert_trees_all_equal(again.scores, circuit.scores)
    assert again.metadata["source"] == str(tmp_path / f"c.{form}")
    assert (again.metadata["level"], again.metadata["warnings"]) == ("edge", [])
    assert again.metadata["graph"]["kv_heads"] == model_config.kv_heads
    chex.assert_trees_all_equal(again.at(edges=20).masks, circuit.at(edges=20).masks)
    # What was found is saved and measured like any circuit.
    again.save(tmp_path / "saved")
    chex.assert_trees_all_equal(mg.load_circuit(tmp_path / "saved").masks, circuit.masks)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_nodes_come_back_as_the_edges_between_them(name: str, form: str, tmp_path: Path) -> None:
    model_config = CONFIGS[name]
    for seed in range(3):
        nodes = some_nodes(model_config, seed)
        file = tmp_path / f"{seed}.{wanted(form)}"
        again = through(mg.Circuit(masks=nodes, metadata={}), model_config, file)
        chex.assert_trees_all_equal(again.masks, edges_between(model_config, nodes))
        assert again.scores is None


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2"])
def test_a_circuit_measures_the_same(name: str, tmp_path: Path) -> None:
    model = tiny.model(name)
    nodes = some_nodes(model.config)
    again = through(mg.Circuit(masks=nodes, metadata={}), model.config, tmp_path / "c.json")
    batch = tiny.batch(model.config)
    kl = mg.evaluate(model, nodes, batch)["kl"]
    assert kl > 1e-3
    assert mg.evaluate(model, again, batch)["kl"] == pytest.approx(kl, abs=1e-5)


def test_what_is_written_is_what_upstream_wants(tmp_path: Path) -> None:
    circuit = ranked(tiny.GPT2)
    mg.export_mib(circuit, tiny.GPT2, tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["cfg"] == {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 12}
    assert list(found["nodes"]) == [*writer_names(tiny.GPT2), "logits"]
    assert found["nodes"]["logits"] == {"in_graph": True}
    kept = {name for name, entry in found["edges"].items() if entry["in_graph"]}
    assert kept == set(edge_names(tiny.GPT2, circuit.masks))
    assert set(found["edges"]) == set(edge_names(tiny.GPT2, existing(tiny.GPT2)))
    assert circuit.scores is not None
    score = found["edges"]["a0.h1->a1.h3<v>"]["score"]
    assert score == float(circuit.scores[V_EDGES][1, 3, 1 + 1])
    nodes = some_nodes(tiny.GPT2)
    mg.export_mib(mg.Circuit(masks=nodes, metadata={}), tiny.GPT2, tmp_path / "n.json")
    found = json.loads((tmp_path / "n.json").read_text())
    heads, mlps = np.asarray(nodes["attention_heads"]), np.asarray(nodes["mlp_blocks"])
    for layer in range(3):
        assert found["nodes"][f"m{layer}"] == {"in_graph": bool(mlps[layer])}
        for head in range(4):
            assert found["nodes"][f"a{layer}.h{head}"]["in_graph"] == heads[layer, head]
    # As many edges of highest score as there are, or those above a half, are the circuit, too.
    for entry in found["edges"].values():
        assert entry["score"] == float(entry["in_graph"])


def test_a_ranking_of_nodes_is_written_for_nodes_and_never_for_logits(tmp_path: Path) -> None:
    scores = {n: np.full(m.shape, 0.25, np.float32) for n, m in mg.full_masks(tiny.GPT2).items()}
    scores["attention_heads"][1, 2] = -3.5
    del scores["mlp_blocks"]
    circuit = mg.Circuit(masks=some_nodes(tiny.GPT2), scores=jax.device_put(scores), metadata={})
    again = through(circuit, tiny.GPT2, tmp_path / "c.json")
    nodes = json.loads((tmp_path / "c.json").read_text())["nodes"]
    assert nodes["a1.h2"]["score"] == -3.5 and nodes["a0.h0"]["score"] == 0.25
    assert math.isnan(nodes["m0"]["score"]) and math.isnan(nodes["input"]["score"])
    assert "score" not in nodes["logits"]
    assert again.scores is None


def test_the_matrices_of_pt_are_laid_out_as_upstream_has_them(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    model_config = tiny.LLAMA
    masks = {n: np.zeros_like(e) for n, e in existing(model_config).items()}
    # input → a1.h2 by query and key, which a1.h3 shares; a1.h2 → m1 → logits.
    masks[Q_EDGES][1, 2, 0] = masks[K_EDGES][1, 1, 0] = True
    masks[MLP_EDGES][1, 1 + 5 + 2] = masks[LOGITS_EDGES][1 + 5 + 4] = True
    circuit = mg.Circuit(masks=jax.device_put(masks), metadata={})
    again = through(circuit, model_config, tmp_path / "c.pt")
    chex.assert_trees_all_equal(again.masks, circuit.masks)
    found = torch.load(tmp_path / "c.pt", weights_only=True)
    assert set(found) == {
        *("cfg", "src_nodes", "dst_nodes"),
        *("edges_scores", "edges_in_graph", "nodes_in_graph"),
    }
    kept = np.argwhere(found["edges_in_graph"].numpy())
    layer = 1 * (3 * 4 + 1)
    assert {tuple(place) for place in kept.tolist()} == {
        (0, layer + 2),
        (0, layer + 4 + 2),
        (8, layer + 12),
        (10, 3 * 13),
    }
    assert found["dst_nodes"][layer + 4 + 2] == "a1.h2<k>" and found["dst_nodes"][-1] == "logits"
    assert np.flatnonzero(found["nodes_in_graph"].numpy()).tolist() == [0, 8, 10]
    assert found["edges_scores"].dtype == torch.float32
    assert (found["edges_scores"] == found["edges_in_graph"]).all()


BY_HAND = """{"cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": false, "d_model": 12},
"nodes": {"input": {"in_graph": true}, "a0.h0": {"in_graph": false}, "a0.h1": {"in_graph": true},
 "m0": {"in_graph": true}, "logits": {"in_graph": true}},
"edges": {"input->a0.h0<q>": {"score": 0.125, "in_graph": false},
"input->a0.h0<k>": {"score": -0.5, "in_graph": false},
"input->a0.h0<v>": {"score": 0.0, "in_graph": false},
"input->a0.h1<q>": {"score": 0.25, "in_graph": false},
"input->a0.h1<k>": {"score": NaN, "in_graph": true},
"input->a0.h1<v>": {"score": -2.0, "in_graph": true},
"input->m0": {"score": 3, "in_graph": true}, "a0.h0->m0": {"score": 1e-05, "in_graph": false},
"a0.h1->m0": {"score": 1.5, "in_graph": true}, "input->logits": {"score": 0.75, "in_graph": false},
"a0.h0->logits": {"score": 0.5, "in_graph": false}, "a0.h1->logits": {"in_graph": false},
"m0->logits": {"score": 0.875, "in_graph": true}}}"""


def test_a_file_as_upstream_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(BY_HAND)
    circuit = mg.import_mib(file, ONE)
    assert set(edge_names(ONE, circuit.masks)) == {
        *("input->a0.h1<k>", "input->a0.h1<v>", "input->m0", "a0.h1->m0", "m0->logits")
    }
    assert circuit.scores is not None
    # NaN, and no score, are kept at every size.
    assert np.asarray(circuit.scores[K_EDGES])[0, 1, 0] == np.inf
    assert np.asarray(circuit.scores[LOGITS_EDGES])[2] == np.inf
    assert np.asarray(circuit.scores[V_EDGES])[0, 1, 0] == -2
    assert np.asarray(circuit.scores[MLP_EDGES]).tolist() == [[3, np.float32(1e-5), 1.5, -np.inf]]
    # By sign the edge of −2 is the last, by size the fourth; edges of a0.h0 lead nowhere else.
    kept = set(edge_names(ONE, circuit.at(edges=12).masks))
    assert "input->a0.h1<v>" not in kept and len(kept) == 12
    absolute = mg.import_mib(file, ONE, absolute=True)
    kept = set(edge_names(ONE, absolute.at(edges=4).masks))
    # input->m0 is the third, but nothing reads m0.
    assert kept == {"input->a0.h1<k>", "a0.h1->logits", "input->a0.h1<v>"}
    # All 13 are a share of one.
    assert edge_count(circuit.at(keep=1.0).masks) == 13
    again = through(circuit, ONE, tmp_path / "again.json")
    chex.assert_trees_all_equal(again.scores, circuit.scores)


@pytest.mark.parametrize("score", [0.0, 2.5, math.nan, None])
def test_scores_that_rank_nothing_are_none(tmp_path: Path, score: float | None) -> None:
    found = json.loads(BY_HAND)
    for entry in found["edges"].values():
        entry.pop("score", None)
        entry |= {} if score is None else {"score": score}
    (tmp_path / "c.json").write_text(json.dumps(found))
    circuit = mg.import_mib(tmp_path / "c.json", ONE)
    assert circuit.scores is None and edge_count(circuit.masks) == 5
    with pytest.raises(mg.MgnpError, match="circuit of imported has one size only"):
        circuit.at(keep=0.5)


def changed(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def test_heads_of_a_group_that_differ_are_said(tmp_path: Path) -> None:
    model_config, file = tiny.LLAMA, tmp_path / "c.json"
    masks = jax.device_put(existing(model_config))
    mg.export_mib(mg.Circuit(masks=masks, metadata={}), model_config, file)

    def close(found: dict[str, Any]) -> None:
        found["edges"]["input->a1.h0<k>"]["in_graph"] = False
        found["edges"]["input->a1.h0<v>"]["score"] = 0.5

    changed(file, close)
    circuit = mg.import_mib(file, model_config)
    # a1.h1 reads it by the same key.
    assert edge_count(circuit.masks) == edge_count(existing(model_config))
    kept, otherwise = circuit.metadata["warnings"]
    assert "keeps 1 edges by key or value for some query heads" in kept
    assert "ranks 1 edges by key or value otherwise" in otherwise
    assert circuit.scores is not None
    assert np.asarray(circuit.scores[V_EDGES])[1, 0, 0] == 1


def test_heads_that_are_not_in_the_circuit_do_not_read_for_their_group(tmp_path: Path) -> None:
    model_config, file = tiny.LLAMA, tmp_path / "c.json"
    kept = {n: np.array(e) for n, e in existing(model_config).items()}
    # Nothing reads a1.h0, and a2's group of h2 and h3 is read by nothing.
    for name in kept:
        kept[name][..., [1 + 5, 1 + 10 + 2, 1 + 10 + 3]] = False
    circuit = mg.Circuit(masks=jax.device_put(kept), metadata={})
    mg.export_mib(circuit, model_config, file)
    edges = json.loads(file.read_text())["edges"]
    assert not edges["input->a1.h0<k>"]["in_graph"] and edges["input->a1.h1<k>"]["in_graph"]
    assert edges["input->a2.h2<k>"]["in_graph"] and edges["input->a2.h3<k>"]["in_graph"]

    def swap(found: dict[str, Any]) -> None:
        for entry in found["edges"].values():
            del entry["score"]
        # By the head that leads nowhere alone.
        for head, kept in ((0, True), (1, False)):
            found["edges"][f"a0.h0->a1.h{head}<v>"]["in_graph"] = kept

    chex.assert_trees_all_equal(mg.import_mib(file, model_config).masks, circuit.masks)
    changed(file, swap)
    again = mg.import_mib(file, model_config)
    assert again.metadata["warnings"] == []
    wanted_masks = {n: np.array(m) for n, m in kept.items()}
    wanted_masks[V_EDGES][1, 0, 1] = False
    chex.assert_trees_all_equal(jax.device_get(again.masks), wanted_masks)


def put(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets what a path of names leads to; None takes it away."""

    def change(found: dict[str, Any]) -> None:
        *way, last = place.split("/")
        for name in way:
            found = found[name]
        if value is None:
            del found[last]
        else:
            found[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("cfg/n_heads", 3), r"cfg n_heads is 3, this model \(gpt2\) has 2"),
        (put("cfg/n_layers", True), "cfg n_layers is True, this model"),
        (put("cfg/d_model", None), "cfg d_model is None"),
        (put("cfg/parallel_attn_mlp", True), "cfg parallel_attn_mlp is True"),
        (put("cfg", []), r"wanted an object named 'cfg', got \[\]"),
        (put("edges", None), "wanted an object named 'edges', got None"),
        (put("edges/m0->a0.h0<q>", {}), "edge 'm0->a0.h0<q>' is none of this model's; write"),
        (put("edges/input->m0", None), "edge 'input->m0' is missing; wanted every edge"),
        (put("edges/input->m0", True), "edge 'input->m0' must be an object with in_graph"),
        (put("edges/input->m0/in_graph", 1), "edge 'input->m0' must be an object with in_graph"),
        (put("edges/input->m0/score", "1"), "edge 'input->m0' has the score '1', wanted a finite"),
        (put("edges/input->m0/score", True), "has the score True"),
        (put("edges/input->m0/score", math.inf), "has the score inf"),
        (put("edges/input->m0/score", 10**400), "has the score 1000.*000, wanted a finite"),
        (put("edges/input->m0/score", 1e39), "has the score 1e.39"),
        (put("nodes/m1", {}), "node 'm1' is none of this model's"),
        (put("nodes/logits", None), "node 'logits' is missing"),
        (put("nodes/m0", True), "node 'm0' must be an object"),
        (put("nodes/m0/neurons", [True, False]), "of node 'm0' some neurons are left out"),
        (put("nodes/m0/neurons", 3), "of node 'm0' some neurons are left out"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(BY_HAND)
    changed(file, change)
    with pytest.raises(mg.MgnpError, match=message) as refused:
        mg.import_mib(file, ONE)
    assert str(refused.value).startswith(str(file))


def test_what_is_more_than_is_read_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(BY_HAND)
    before = mg.import_mib(file, ONE)

    def add(found: dict[str, Any]) -> None:
        found["cfg"]["model_name"] = found["more"] = "gpt2"
        found["nodes"]["m0"] |= {"neurons": [[True, True], [True]], "score": 4.0}
        found["nodes"]["a0.h0"] |= {"neurons": [False]}

    changed(file, add)
    again = mg.import_mib(file, ONE)
    chex.assert_trees_all_equal((again.masks, again.scores), (before.masks, before.scores))


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    twice = '"edges": {"m0->logits": {"score": 1, "in_graph": false},'
    file.write_text(BY_HAND.replace('"edges": {', twice))
    with pytest.raises(mg.MgnpError, match="theirs.json: entry 'm0->logits' stands there twice"):
        mg.import_mib(file, ONE)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_too_large_is_not_parsed(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"c.{wanted(form)}"
    with file.open("wb") as stream:
        stream.truncate(10**9)
    with pytest.raises(mg.MgnpError, match="1,000,000,000 bytes, wanted at most"):
        mg.import_mib(file, ONE)
    with pytest.raises(mg.MgnpError, match=f"none.{form} cannot be read: |is no plain file"):
        mg.import_mib(tmp_path / f"none.{form}", ONE)


@pytest.mark.parametrize("form", FORMS)
def test_another_models_circuit_is_neither_written_nor_read(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"c.{wanted(form)}"
    with pytest.raises(mg.MgnpError, match="the masks of the circuit do not fit this model"):
        mg.export_mib(mg.Circuit(masks=full_edges(ONE), metadata={}), tiny.GPT2, file)
    assert not file.exists()
    mg.export_mib(ranked(tiny.GPT2), tiny.GPT2, file)
    wide = dataclasses.replace(tiny.GPT2, width=16)
    for other, name in ((ONE, "n_layers"), (tiny.PARALLEL, "parallel"), (wide, "d_model")):
        with pytest.raises(mg.MgnpError, match=f"cfg {name}"):
            mg.import_mib(file, other)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    circuit = ranked(ONE)
    for path, message in (
        (tmp_path / "c.txt", "must end in one of .json, .pt"),
        (tmp_path / "none" / "c.json", "cannot be written: No such file"),
    ):
        with pytest.raises(mg.MgnpError, match=message):
            mg.export_mib(circuit, ONE, path)
    mg.export_mib(circuit, ONE, tmp_path / "c.json")
    with pytest.raises(mg.MgnpError, match="c.json exists already"):
        mg.export_mib(circuit, ONE, tmp_path / "c.json")
    assert circuit.scores is not None
    never = {**circuit.scores, MLP_EDGES: jax.numpy.full_like(circuit.scores[MLP_EDGES], -np.inf)}
    # What is never to be kept, no file can say: it is written without a ranking.
    mg.export_mib(dataclasses.replace(circuit, scores=never), ONE, tmp_path / "d.json")
    mg.export_mib(dataclasses.replace(circuit, scores=None), ONE, tmp_path / "e.json")
    assert (tmp_path / "d.json").read_text() == (tmp_path / "e.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "d.json", "e.json"]


def test_without_pytorch_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(mg.MgnpError, match="written and read by PyTorch, which is not installed"):
        mg.export_mib(ranked(ONE), ONE, tmp_path / "c.pt")
    with pytest.raises(mg.MgnpError, match="use a .json file, which says the same"):
        mg.import_mib(tmp_path / "c.pt", ONE)
