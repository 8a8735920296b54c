"""The page in a real browser, from the disk, with the network off."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import Graph
from mgnp_jax.masks.ranking import RANKING, above, all_the_way, together
from mgnp_jax.report.page.content import Shown, content_of
from mgnp_jax.report.page.html import write_list, write_page
from mgnp_jax.report.page.runs_list import run_rows
from tests.experiments.test_convert import edges_of
from tests.report import browser as browsing
from tests.report.browser import Opened
from tests.report.some_evidence import some_evidence

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = browsing.needed
Open = Callable[..., Opened]
HOSTILE = [
    "<script>document.title = 'taken'</script>",
    '"\'`</script><img src=x onerror="document.title=1">',
    "\u202eright to left \u05d0\u05d1\u05d2",
    "x" * 10_000,
    "\ud800\u2028&lt;",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    yield from browsing.launched()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Open]:
    """Opens pages, and looks at the end that none asked for anything or complained."""
    pages: list[Opened] = []

    def open_page(*arguments: Any, **options: Any) -> Opened:
        pages.append(Opened(chromium, *arguments, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def circuit(mini: mg.Model) -> mg.Circuit:
    """Nodes of a random ranking."""
    rng = np.random.default_rng(0)
    shapes = mg.full_masks(mini.config)
    scores = all_the_way({name: rng.normal(size=leaf.shape) for name, leaf in shapes.items()})
    metadata = {"task": "ioi", "model": "gpt2-mini", "method": "mine", "seed": 0}
    return mg.Circuit(
        masks=above(scores, 0.0),
        scores=jax.device_put(scores),
        metadata={
            **metadata,
            RANKING: together(mini.config),
            "graph": Graph.of(mini.config)._asdict(),
        },
    )


def results_for(mini: mg.Model, circuit: mg.Circuit) -> dict[str, Any]:
    figures = {"score": 8.5, "accuracy": 0.99, "kl": 0.01, "exact_match": 0.75, "prompts": 500}
    figures |= {"base_score": 8.75, "base_accuracy": 1.0}
    return {
        "base": {"score": 8.75, "accuracy": 1.0},
        "circuit": figures,
        **mg.circuit_sizes(mini.config, circuit.masks),
        "controls": dict.fromkeys(("circuit", "random", "complement", "empty"), figures),
        "warnings": ["<b>bold</b> & so on"],
        "training": {"seconds": 12.0},
    }


@pytest.fixture(scope="module")
def shown(mini: mg.Model, circuit: mg.Circuit) -> Shown:
    curve = [
        {"prunable_kept": kept, "edge_sparsity": 100 * (1 - kept), "kl": 0.01 / kept}
        for kept in (0.01, 0.1, 0.5, 1.0)
    ]
    return Shown("mine", circuit, results_for(mini, circuit), curve)


@pytest.fixture(scope="module")
def evidence(mini: mg.Model, circuit: mg.Circuit) -> dict[str, Any]:
    return some_evidence(mini.config, circuit)


@pytest.fixture(scope="module")
def page(
    mini: mg.Model,
    shown: Shown,
    evidence: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    file = tmp_path_factory.mktemp("page") / "index.html"
    write_page(file, content_of(shown, mini.config, evidence=evidence))
    return file


def test_the_slider_shows_the_circuit_of_each_size(
    opened: Open, page: Path, mini: mg.Model, circuit: mg.Circuit, shown: Shown
) -> None:
    seen = opened(page)
    steps = content_of(shown, mini.config)["steps"]
    kept = "[...document.querySelectorAll('#grid .cell.kept')].map((cell) => cell.dataset.node)"
    assert circuit.scores is not None
    masks = circuit.masks
    assert set(seen.page.evaluate(kept)) == nodes_in(masks)
    seen.page.focus("#slider")
    for key, step in (("Home", 0), ("End", len(steps["kept"]) - 1), ("ArrowLeft", None)):
        seen.page.keyboard.press(key)
        step = len(steps["kept"]) - 2 if step is None else step
        share = steps["kept"][step] * (1 + 1e-4)
        wanted = circuit.at(keep=min(share, 1.0)).masks
        assert set(seen.page.evaluate(kept)) == nodes_in(wanted)
        assert f"{steps['edges'][step]:,} edges" in seen.text("#size-told")
        hidden = int(np.asarray(wanted["mlp_hidden"])[-1].sum())
        assert f"{hidden}/512" in seen.text("#grid tbody tr:first-child td.strip:nth-last-child(2)")
    seen.page.click("#as-found")
    assert set(seen.page.evaluate(kept)) == nodes_in(masks)


def nodes_in(masks: mg.Masks) -> set[str]:
    heads = {f"a{n}.h{h}" for n, h in np.argwhere(np.asarray(masks["attention_heads"]))}
    return heads | {f"m{n}" for n in np.flatnonzero(np.asarray(masks["mlp_blocks"]))}


def test_a_step_of_the_slider_is_fast(opened: Open, page: Path) -> None:
    times = opened(page, "#node=a0.h0").page.evaluate(
        """() => {
          const slider = document.getElementById("slider"), times = [];
          for (let step = 0; step <= Number(slider.max); step++) {
            const start = performance.now();
            slider.value = String(step);
            slider.dispatchEvent(new Event("input"));
            document.body.getBoundingClientRect();
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    assert len(times) > 20 and np.median(times) < 50


def test_a_click_on_a_node_tells_all_that_is_known_of_it(
    opened: Open, page: Path, evidence: dict[str, Any]
) -> None:
    seen = opened(page)
    layer, head = evidence["patterns"]["heads"][3]
    name = f"a{layer}.h{head}"
    seen.page.click(f"#grid [data-node='{name}']")
    assert seen.text("#panel-title") == f"Node {name}"
    told = seen.text("#panel")
    removal = evidence["removal"]["attention_heads"]["score"][layer][head]
    assert f"{removal:.3g}".replace("-", "−")[:4] in told and "exact" in told
    for words in (
        "75.0 % of the circuits",
        "Where it acts",
        "inside the circuit",
        "towards",
        "away from",
        "Reads from",
    ):
        assert words in told
    assert " Mary" in told and f"node={name}" in seen.page.url
    assert seen.page.locator(f"#grid [data-node='{name}']").get_attribute("aria-selected") == "true"
    # The heat map is of the run and of the token that are chosen.
    shapes = seen.page.locator("#panel svg rect").count()
    seen.page.click("#panel button:text-is('corrupted run')")
    assert seen.page.locator("#panel button[aria-pressed=true]:text('corrupted')").count() == 1
    assert shapes > 50
    seen.page.click("#panel button.token >> nth=2")
    assert "From token 2" in seen.text("#panel")
    again = opened(page, f"#node={name}")
    assert again.text("#panel-title") == f"Node {name}"
    neuron = evidence["drivers"][0]
    there = opened(page, f"#node=m{neuron[0]}.n{neuron[1]}").text("#panel")
    assert "Prompts that drive it most" in there and "3.50 at token 1" in there
    assert "One more" in there


def test_prompts_can_be_chosen(opened: Open, page: Path) -> None:
    seen = opened(page)
    assert "Mary" in seen.text("#prompts .tops")
    seen.page.select_option("#prompt", "1")
    assert "Lisa" in seen.text("#prompts .tops") and "prompt=1" in seen.page.url
    assert seen.page.locator("#prompts .token.differs").count() == 2
    seen.page.click("#prompts button:text('Next')")
    assert "Mary" in seen.text("#prompts .tops")


def test_search_finds_nodes_tokens_and_prompts(opened: Open, page: Path) -> None:
    seen = opened(page)
    for asked, chosen in (("a1.h2", "a1.h2"), ("m3", "m3"), ("M0.N5", "m0.n5")):
        seen.page.fill("#search", asked)
        seen.page.press("#search", "Enter")
        assert seen.text("#panel-title") == f"Node {chosen}"
    seen.page.fill("#search", "park")
    assert "writes away from “ park”" in seen.text("#found")
    seen.page.press("#search", "ArrowDown")
    seen.page.press("#search", "Enter")
    assert "park" in seen.text("#panel")
    seen.page.fill("#search", "a9.h9")
    assert seen.text("#found") == "Nothing found"
    seen.page.press("#search", "Escape")
    assert not seen.page.is_visible("#found")


def test_pins_labels_and_groups_stay_in_the_address(
    opened: Open, page: Path, tmp_path: Path
) -> None:
    seen = opened(page, "#node=a0.h1")
    seen.page.click("#pin")
    seen.page.fill("#note-label", "<i>mover</i> & co")
    seen.page.fill("#note-group", "movers")
    seen.page.press("#note-group", "Tab")
    assert "<i>mover</i> & co" in seen.text("#notes") and "movers" in seen.text("#notes h3")
    assert seen.page.locator("#grid .cell.pinned").count() == 1
    file = seen.saved("#save-notes", tmp_path)
    nodes = json.loads(file.read_text())["nodes"]
    assert nodes == [{"node": "a0.h1", "label": "<i>mover</i> & co", "group": "movers"}]
    again = opened(page, "#" + seen.page.url.partition("#")[2])
    assert "<i>mover</i> & co" in again.text("#notes")
    again.page.click("#notes button[aria-label='Unpin a0.h1']")
    assert "notes" not in again.page.url and "None yet" in again.text("#notes")
    for bad in ("#notes=%7B%22a99.h0%22%3A%7B%7D%7D", "#notes=%7B", "#notes=null"):
        assert "cannot be read" in opened(page, bad).text("#notes")
    assert "has not" in opened(page, "#node=a99.h0&size=1e9&prompt=-1").text("#notes")


def test_downloads_are_what_the_package_writes(
    opened: Open,
    page: Path,
    tmp_path: Path,
    mini: mg.Model,
    circuit: mg.Circuit,
    evidence: dict[str, Any],
) -> None:
    seen = opened(page, "#notes=" + quote(json.dumps({"a0.h0": {"label": "=1+1"}})))
    file = seen.saved("[data-file='circuit.json']", tmp_path)
    mg.export_mib(circuit, mini.config, tmp_path / "ours.json")
    assert file.read_bytes() == (tmp_path / "ours.json").read_bytes()
    # The circuit as found, whatever size is looked at; the graph says what of that it lacks.
    seen.page.focus("#slider")
    seen.page.keyboard.press("End")
    seen.page.locator("#graph output:text('at this size')").wait_for(timeout=5_000)
    masks = np.load(seen.saved("[data-file='masks.npz']", tmp_path))
    for name, mask in circuit.masks.items():
        np.testing.assert_array_equal(masks[name], mask)
    with seen.saved("[data-file='nodes.csv']", tmp_path).open(newline="") as stream:
        rows = {row["node"]: row for row in csv.DictReader(stream)}
    kept = sum(int(circuit.masks[n].sum()) for n in mg.GRANULARITIES[3:])
    assert len(rows) == kept + 4 * 9
    assert rows["a0.h0"]["label"] == "'=1+1" and rows["a0.h0"]["layer"] == "0"
    for layer, head in evidence["patterns"]["heads"]:
        row = rows[f"a{layer}.h{head}"]
        wanted = evidence["removal"]["attention_heads"]["score"][layer][head]
        assert float(row["removal-score"]) == wanted and row["kept"] == "1"
    seen.page.click("#as-found")
    graph = json.loads(seen.saved("[data-file='graph.json']", tmp_path).read_text())
    check_graph(graph, evidence)


def check_graph(graph: dict[str, Any], evidence: dict[str, Any]) -> None:
    """What Neuronpedia's graph-schema.json (draft 7) asks of a file."""
    assert set(graph) == {"metadata", "qParams", "nodes", "links"}
    assert {"slug", "scan", "prompt_tokens", "prompt"} <= set(graph["metadata"])
    assert graph["metadata"]["prompt_tokens"] == evidence["examples"][0]["clean_tokens"]
    wanted = {"node_id": str, "feature": int | None, "layer": str | int, "ctx_idx": int}
    wanted |= {"feature_type": str, "jsNodeId": str, "clerp": str}
    for node in graph["nodes"]:
        assert all(isinstance(node[name], kind) for name, kind in wanted.items())
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids) > 2
    for link in graph["links"]:
        assert {link["source"], link["target"]} <= set(ids) and abs(link["weight"]) > 0
    assert len(graph["links"]) == len(evidence["edges"])
    assert set(graph["qParams"]["pinnedIds"]) <= set(ids)


def test_dark_and_light(opened: Open, page: Path) -> None:
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
    seen = opened(page)
    assert seen.page.evaluate(colour) == light
    seen.page.click("#theme")
    assert seen.page.evaluate(colour) == dark and seen.text("#theme") == "Light"
    other = opened(page, color_scheme="dark")
    assert other.page.evaluate(colour) == dark
    other.page.click("#theme")
    assert other.page.evaluate(colour) == light


def test_the_grid_goes_by_keyboard(opened: Open, page: Path) -> None:
    seen = opened(page)
    focused = "document.activeElement.dataset.node"
    seen.page.focus("#grid [data-node='a0.h0']")
    for key, node in (
        *(("ArrowUp", "a1.h0"), ("ArrowRight", "a1.h1"), ("End", "m1"), ("ArrowRight", "m1")),
        *(("ArrowDown", "m0"), ("ArrowDown", "m0"), ("ArrowLeft", "a0.h7"), ("Home", "a0.h0")),
    ):
        seen.page.keyboard.press(key)
        assert seen.page.evaluate(focused) == node
        assert seen.text("#panel-title") == f"Node {node}"
    assert seen.page.locator("#grid [tabindex='0']").count() == 1
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert seen.page.evaluate(outline) == "solid"
    seen.page.focus("#graph [data-node='logits']")
    seen.page.keyboard.press("Enter")
    assert "logits is no node" in seen.text("#panel")


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(opened: Open, page: Path, width: int) -> None:
    seen = opened(page, "#node=a0.h0", width=width)
    assert seen.overflow() <= 0
    seen.page.emulate_media(media="print")
    assert seen.page.locator("#grid").is_visible() and not seen.page.locator("#search").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_labels_and_roles(
    opened: Open, page: Path, evidence: dict[str, Any], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    layer, head = evidence["patterns"]["heads"][0]
    notes = json.dumps({f"a{layer}.h{head}": {"label": "one", "group": "g"}})
    seen = opened(page, f"#node=a{layer}.h{head}&notes={notes}", color_scheme=scheme)
    found = axe.Axe().run(seen.page)
    told = [
        (v["id"], [node["html"][:120] for node in v["nodes"][:3]])
        for v in found.response["violations"]
    ]
    assert not told


def test_words_of_prompts_are_text(
    opened: Open, mini: mg.Model, shown: Shown, tmp_path: Path
) -> None:
    evidence = some_evidence(mini.config, shown.circuit, [["a", *HOSTILE], ["b", " c"]])
    evidence["examples"][0]["answers"] = evidence["examples"][0]["wrong_answers"] = HOSTILE[:3]
    for row in evidence["writes"]["attention_heads"]["towards"]:
        row[2] = [[text, 1.0] for text in HOSTILE]
    name = "</script><script>alert(1)</script>"
    odd = dataclasses.replace(shown.circuit, metadata={**shown.circuit.metadata, "task": name})
    file = tmp_path / "index.html"
    other = Shown(name, odd, {**shown.results, "warnings": HOSTILE})
    write_page(file, content_of(other, mini.config, evidence=evidence, others=[other]))
    layer, head = evidence["patterns"]["heads"][0]
    for width in (1280, 400):
        seen = opened(file, f"#node=a{layer}.h{head}", width=width)
        assert seen.page.title() == f"{name} on gpt2-mini – circuit" and seen.overflow() <= 0
        assert seen.page.locator("script").count() == 3 and not seen.page.locator("img").count()
        prompt = seen.page.locator("#prompts .tokens").first.text_content() or ""
        panel = seen.page.locator("#panel").text_content() or ""
        assert all(text in prompt and text in panel for text in HOSTILE[:2])
        assert HOSTILE[3] in prompt


def test_without_evidence_the_page_says_how_to_have_it(
    opened: Open, mini: mg.Model, shown: Shown, tmp_path: Path
) -> None:
    file = tmp_path / "index.html"
    bare = Shown("bare", dataclasses.replace(shown.circuit, scores=None), {})
    write_page(file, content_of(bare, mini.config))
    seen = opened(file, "#node=m0")
    assert "mgnp_jax.explain" in seen.text("#panel") and "ranks nothing" in seen.text("#size")
    assert "was not measured" in seen.text("header")
    assert not seen.page.is_visible("#prompts-part") and not seen.page.is_visible("#lens-part")
    assert seen.page.locator("#graph .node").count() > 2


def test_a_circuit_of_edges_shows_them_and_others_stand_beside_it(
    opened: Open, mini: mg.Model, shown: Shown, tmp_path: Path
) -> None:
    edges = edges_of(mini).at(keep=0.05)
    file = tmp_path / "index.html"
    write_page(file, content_of(Shown("edges", edges, {}), mini.config, others=[shown]))
    seen = opened(file)
    count = sum(int(mask.sum()) for mask in edges.masks.values())
    assert f"of {count} edges" in seen.text("#graph")
    assert not seen.page.locator("#grid .strip").count()
    assert seen.page.locator("#graph .edge").count() == min(count, 80)
    seen.page.focus("#slider")
    seen.page.keyboard.press("Home")
    # The graph follows when the slider rests.
    seen.page.locator("#graph .edge").nth(10).wait_for(state="detached", timeout=5_000)
    assert "at this size" not in seen.text("#graph")
    told = seen.text("#compare")
    assert "mine (mine)" in told and "in both" in told.lower()
    assert seen.page.locator("#compare svg rect").count() == 4 * 9


def test_the_list_of_runs_is_sorted_by_a_click(opened: Open, tmp_path: Path) -> None:
    found = [(name, {"circuit": {"kl": kl}}) for name, kl in (("b", 10.0), ("a", 9.0), ("c", None))]
    rows = run_rows([(name, "index.html", results) for name, results in found])
    write_list(tmp_path / "index.html", "runs", rows)
    for width in (1280, 400):
        seen = opened(tmp_path / "index.html", width=width)
        assert seen.overflow() <= 0
        names = seen.page.locator("tbody th")
        assert names.all_inner_texts() == ["b", "a", "c"]
        for heading, order in (
            *(("KL, nats", "bac"), ("KL, nats", "abc"), ("Folder", "abc"), ("Folder", "cba")),
        ):
            seen.page.click(f"thead button:text('{heading}')")
            assert names.all_inner_texts() == [*order]
        assert seen.page.locator("th[aria-sort='descending']").inner_text().startswith("Folder")
