"""MIB's nine circuits: small enough, each within the next, and as they are read."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import without_dangling
from mgnp_jax.masks.mib.layout import graph_edges
from mgnp_jax.report.mib_submission import PER_MILLE
from tests import tiny
from tests.masks.test_edges import some_nodes
from tests.masks.test_mib import CONFIGS, ranked

NAMES = [
    *("0.1-percent.json", "0.2-percent.json", "0.5-percent.json", "1-percent.json"),
    *("2-percent.json", "5-percent.json", "10-percent.json", "20-percent.json"),
    "50-percent.json",
]


def node_ranking(model_config: mg.ModelConfig) -> mg.Circuit:
    rng = np.random.default_rng(3)
    masks = mg.full_masks(model_config)
    scores = {n: rng.random(m.shape).astype(np.float32) for n, m in masks.items()}
    nodes = some_nodes(model_config)
    return mg.Circuit(masks=nodes, scores=jax.device_put(scores), metadata={})


@pytest.mark.parametrize("find", [ranked, node_ranking])
@pytest.mark.parametrize("name", CONFIGS)
def test_nine_files_small_enough_and_nested(name: str, find, tmp_path: Path) -> None:
    model_config = CONFIGS[name]
    circuit = find(model_config)
    counts = mg.export_mib_submission(circuit, model_config, tmp_path / "s")
    assert list(counts) == NAMES
    assert {path.name for path in (tmp_path / "s").iterdir()} == {*NAMES, "README.md"}
    total = int(graph_edges(model_config).sum())
    before: set[str] = set()
    for (file, count), size in zip(counts.items(), PER_MILLE):
        edges = json.loads((tmp_path / "s" / file).read_text())["edges"]
        kept = {name for name, entry in edges.items() if entry["in_graph"]}
        assert len(edges) == total and len(kept) == count <= total * size / 1000
        assert before <= kept
        before = kept
        found = mg.import_mib(tmp_path / "s" / file, model_config)
        assert found.scores is None and found.metadata["warnings"] == []
        for kind, mask in without_dangling(found.masks).items():
            np.testing.assert_array_equal(mask, found.masks[kind])
    assert len(before) > total / 4
    page = (tmp_path / "s" / "README.md").read_text()
    assert f"| `50-percent.json` | {total // 2:,} | {counts[NAMES[-1]]:,} |" in page
    # Without grouped queries these are the circuits of the ranking.
    if model_config.kv_heads == model_config.heads and find is ranked:
        wanted = circuit.at(edges=total // 2).masks
        for kind, mask in found.masks.items():
            np.testing.assert_array_equal(mask, wanted[kind])


def test_with_grouped_queries_no_larger_circuit_fits(tmp_path: Path) -> None:
    # Keys and values count for each head in a file: the share of the edges here is too many there.
    model_config = tiny.LLAMA
    circuit = ranked(model_config)
    counts = mg.export_mib_submission(circuit, model_config, tmp_path / "s")
    limit = int(graph_edges(model_config).sum()) // 2
    mine = mg.import_mib(tmp_path / "s" / NAMES[-1], model_config)
    own = sum(int(np.asarray(mask).sum()) for mask in mine.masks.values())
    assert own < counts[NAMES[-1]] <= limit
    for count in range(own + 1, own + 40):
        larger = circuit.at(edges=count)
        mg.export_mib(larger, model_config, file := tmp_path / f"{count}.json")
        edges = json.loads(file.read_text())["edges"].values()
        kept = sum(entry["in_graph"] for entry in edges)
        assert kept > limit or kept == counts[NAMES[-1]]


def test_what_is_no_ranking_or_no_new_folder_is_refused(tmp_path: Path) -> None:
    circuit = mg.Circuit(masks=some_nodes(tiny.GPT2), metadata={"method": "mine"})
    with pytest.raises(mg.MgnpError, match="a circuit of mine has one size only: it ranks nothing"):
        mg.export_mib_submission(circuit, tiny.GPT2, tmp_path / "s")
    with pytest.raises(mg.MgnpError, match="do not fit this model"):
        mg.export_mib_submission(ranked(tiny.LLAMA), tiny.GPT2, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    (tmp_path / "mine.txt").touch()
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(mg.MgnpError, match="is not an empty folder"):
            mg.export_mib_submission(ranked(tiny.GPT2), tiny.GPT2, folder)
    with pytest.raises(mg.MgnpError, match="s cannot be written: Not a directory"):
        mg.export_mib_submission(ranked(tiny.GPT2), tiny.GPT2, tmp_path / "mine.txt" / "s")
