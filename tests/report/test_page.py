"""What a page carries, without a browser: nothing gets out of its place, and all of it is right."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import READERS, Graph, edge_count, existing
from mgnp_jax.masks.granularities import NEURONS
from mgnp_jax.masks.levels import level_of
from mgnp_jax.masks.ranking import RANKING, above, all_the_way, together
from mgnp_jax.report.page.content import Shown, content_of
from mgnp_jax.report.page.evidence_form import carried
from mgnp_jax.report.page.headline import headlines
from mgnp_jax.report.page.html import embedded, write_list, write_page
from mgnp_jax.report.page.packing import bits, compressed, npz, sparse
from mgnp_jax.report.page.runs_list import run_rows
from mgnp_jax.report.page.sizes import nested_masks, steps_of
from tests import tiny
from tests.report.some_evidence import some_evidence

HOSTILE = ["</script><script>alert(1)</script>", "<!--", "]]>", "&lt;", "\u2028", "\ud800", '"\\']


def ranked(config: mg.ModelConfig) -> mg.Circuit:
    """Nodes of a random ranking of all granularities together."""
    rng = np.random.default_rng(1)
    drawn = {name: rng.normal(size=leaf.shape) for name, leaf in mg.full_masks(config).items()}
    scores = all_the_way(drawn)
    metadata = {RANKING: together(config), "graph": Graph.of(config)._asdict(), "task": "ioi"}
    return mg.Circuit(masks=above(scores, -1.0), scores=jax.device_put(scores), metadata=metadata)


def ranked_edges(config: mg.ModelConfig) -> mg.Circuit:
    """Edges of a random ranking."""
    rng = np.random.default_rng(2)
    scores = {
        name: np.where(there, rng.normal(size=there.shape), -np.inf).astype(np.float32)
        for name, there in existing(config).items()
    }
    masks = jax.device_put(existing(config))
    return mg.Circuit(masks=masks, scores=jax.device_put(scores), metadata={}).at(keep=0.5)


def test_embedded_json_has_nothing_that_ends_its_element() -> None:
    content = {text: [text] for text in HOSTILE} | {"x": float("nan"), "y": np.float32(0.5)}
    text = embedded(content)
    assert not set("<>&\u2028\n") & set(text)
    assert json.loads(text) == {each: [each] for each in HOSTILE} | {"x": None, "y": 0.5}


def test_arrays_and_files_come_back() -> None:
    mask = np.random.default_rng(0).random((3, 7, 5)) < 0.5
    raw = np.frombuffer(base64.b64decode(bits(mask)), np.uint8)
    np.testing.assert_array_equal(np.unpackbits(raw, bitorder="little")[: mask.size], mask.ravel())
    assert gzip.decompress(base64.b64decode(compressed(b"text"))) == b"text"
    archive = np.load(io.BytesIO(base64.b64decode(npz({"a": mask}))))
    np.testing.assert_array_equal(archive["a"], mask)
    found = sparse([[None, 0.0], [0.5, None], [False, True]])
    assert found == {"places": [1, 2, 5], "values": [0.0, 0.5, True]}


@pytest.mark.parametrize("make", [ranked, ranked_edges])
def test_the_steps_of_the_slider_are_the_circuits_of_the_ranking(make: Any) -> None:
    circuit = make(tiny.LLAMA)
    level = level_of(circuit.masks)
    steps = steps_of(circuit, tiny.LLAMA)
    assert steps is not None
    kept = steps["kept"]
    assert len(kept) > 10 and kept == sorted(set(kept)) and kept[-1] == pytest.approx(1)
    by_edges = {}
    for masks in nested_masks(circuit, tiny.LLAMA):
        count = edge_count(level.edges(tiny.LLAMA, masks))
        size = count / steps["edges"][-1] if level.name == "edge" else None
        size = size or mg.circuit_sizes(tiny.LLAMA, masks)["parameters"]["prunable_kept"]
        by_edges[f"{size:.5g}"] = masks
    for step, size in enumerate(kept):
        masks = by_edges[f"{size:.5g}"]
        nodes = level.nodes(tiny.LLAMA, masks)
        for name, first in steps["first"].items():
            np.testing.assert_array_equal(np.array(first) <= step, np.ravel(nodes[name]))
        for name in NEURONS:
            there = np.asarray(nodes[name]).sum(-1).ravel()
            np.testing.assert_array_equal(steps["counts"][name][step], there)
        for name, first in steps["first_edges"].items():
            np.testing.assert_array_equal(np.array(first) <= step, np.ravel(masks[name]))
    assert set(steps["first_edges"]) == (set(READERS) if level.name == "edge" else set())
    assert steps_of(dataclasses.replace(circuit, scores=None), tiny.LLAMA) is None


def test_the_slider_goes_through_what_has_one_number() -> None:
    config = tiny.GPT2
    own: Any = dict(ranked(config).scores or {})
    # A block that comes last, and with it all that it has in it.
    own["mlp_blocks"] = np.where(np.arange(config.layers) == 1, -9.0, own["mlp_blocks"])
    scores: Any = jax.device_put(all_the_way(own))
    circuit = dataclasses.replace(ranked(config), scores=scores, log_alpha=own)
    steps = steps_of(circuit, config)
    assert steps is not None
    hidden = {counts[1] for counts in steps["counts"]["mlp_hidden"]}
    assert len(np.unique(scores["mlp_hidden"][1])) == 1 and len(hidden) > 2


def test_scores_that_do_not_rank_all_nodes_together_give_steps_too() -> None:
    circuit = ranked(tiny.GPT2)
    alone = dataclasses.replace(circuit, metadata={})
    steps = steps_of(alone, tiny.GPT2)
    assert steps is not None and len(steps["kept"]) > 10
    for keep in (0.2, 1.0):
        wanted = alone.at(keep=keep).masks
        edges = edge_count(level_of(wanted).edges(tiny.GPT2, wanted))
        assert edges in steps["edges"]


def test_overlaps_and_edges_are_those_of_the_masks() -> None:
    one, other = ranked(tiny.GPT2), ranked(tiny.GPT2)
    none = {**one.masks, "attention_heads": one.masks["attention_heads"] & False}
    other = dataclasses.replace(other, masks=level_of(none).consistent(none))
    found = content_of(Shown("a", one, {}), tiny.GPT2, others=[Shown("b", other, {})])
    (overlap,) = [each["overlap"] for each in found["others"]]
    heads = int(one.masks["attention_heads"].sum())
    assert heads and overlap["attention_heads"] == [heads, 0, 0]
    hidden = int(one.masks["mlp_hidden"].sum())
    assert overlap["mlp_hidden"] == [hidden, hidden, hidden]
    assert overlap["edges"][0] == found["kept_edges"] > overlap["edges"][1] == overlap["edges"][2]
    edges = ranked_edges(tiny.LLAMA)
    rows = content_of(Shown("e", edges, {}), tiny.LLAMA)["edges"]
    names = {f"{writer}->{reader}" for writer, reader, kept, *_ in rows if kept}
    assert names == set(mg.edge_names(tiny.LLAMA, edges.masks))
    scores = [score for _, _, kept, score, _ in rows if kept]
    assert scores == sorted(scores, reverse=True)


def test_evidence_of_another_model_is_refused() -> None:
    circuit = ranked(tiny.GPT2)
    evidence = some_evidence(tiny.GPT2, circuit)
    kept = np.argwhere(np.asarray(circuit.masks["mlp_hidden"]).ravel()).ravel()
    found = carried(evidence, tiny.GPT2)["removal"]["mlp_hidden"]["score"]
    assert found["places"] == kept.tolist()
    flat = np.array(evidence["removal"]["mlp_hidden"]["score"], object).ravel()
    assert found["values"] == flat[kept].tolist()
    wider = dataclasses.replace(tiny.GPT2, heads=6, kv_heads=6)
    with pytest.raises(mg.MgnpError, match=r"removal of attention_heads has the shape \(3, 4\)"):
        carried(evidence, wider)


def test_figures_that_are_missing_are_left_out() -> None:
    assert headlines({}) == [] and headlines({"circuit": 3, "sizes": None}) == []
    found = headlines({"circuit": {"kl": 0.25, "score": 1.0, "accuracy": None}, "base": {}})
    assert [line.value for line in found] == ["0.2500"]
    odd = {"controls": {"circuit": {"kl": "x"}}, "warnings": "w", "edges": []}
    shown = content_of(Shown("a", ranked(tiny.GPT2), odd), tiny.GPT2)["results"]
    assert shown == {"controls": {}, "warnings": []}


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, text: str) -> None:
        """Reads them.

        Args:
          text: HTML.
        """
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one."""
        self.found.append((tag, dict(attrs)))


def test_a_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    circuit = ranked(tiny.GPT2)
    metadata = {**circuit.metadata, "task": HOSTILE[0], "method": HOSTILE[1]}
    shown = Shown(HOSTILE[0], dataclasses.replace(circuit, metadata=metadata), {})
    evidence = some_evidence(tiny.GPT2, circuit, [HOSTILE, HOSTILE])
    content = content_of(shown, tiny.GPT2, evidence=evidence)
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, content)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    elements = Elements(text).found
    tags = [tag for tag, _ in elements]
    assert tags.count("script") == 3 and not {"img", "iframe", "object", "base"} & set(tags)
    addresses = [a.get("src") or a.get("href") for _, a in elements if "src" in a or "href" in a]
    assert all(address and address.startswith(("data:,", "#")) for address in addresses)
    (policy,) = [str(a["content"]) for _, a in elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    assert (
        "Permission to use, copy, modify" in text and "innerHTML" not in text.split("d3js.org")[0]
    )
    (data,) = re.findall(r'id="content">(.*?)</script>', text)
    assert json.loads(data)["evidence"]["examples"][0]["clean_tokens"] == HOSTILE


def test_scripts_never_read_text_as_html() -> None:
    folder = Path(mg.__file__).parent / "report" / "page" / "assets"
    scripts = [file for file in folder.glob("*.js") if file.name != "d3.min.js"]
    assert len(scripts) > 15
    for file in scripts:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 250 and text.startswith("// "), file
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            ".html(",
            "eval(",
            "fetch(",
        ):
            assert forbidden not in text, f"{file} has {forbidden}"
    assert (folder / "d3.min.js").stat().st_size <= 300_000


def test_a_list_of_runs_links_to_each(tmp_path: Path) -> None:
    results = {"task": "<b>", "circuit": {"kl": 0.5}, "parameters": {"prunable_kept": 0.25}}
    rows = run_rows([("a b/c#d", "index.html", results), ("javascript:x", "README.md", {})])
    assert [row["link"] for row in rows] == [
        "./a%20b/c%23d/index.html",
        "./javascript%3Ax/README.md",
    ]
    write_list(tmp_path / "index.html", "<i>runs</i>", rows)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    tags = [tag for tag, _ in Elements(text).found]
    assert "b" not in tags and "i" not in tags and tags.count("tr") == 3
    assert "&lt;i&gt;runs" in text and ">0.5000<" in text and ">25.0<" in text
