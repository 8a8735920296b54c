"""ACDC: equal to testing edges one by one, whatever is tried together; by hand on eight edges."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import edge_names
from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    edge_count,
    existing,
    full_edges,
)
from mgnp_jax.methods.acdc import trials as trials_module
from mgnp_jax.methods.acdc.config import AcdcConfig
from mgnp_jax.methods.acdc.order import by_kind, order_of
from mgnp_jax.methods.acdc.search import Found, edges_removed
from mgnp_jax.methods.acdc.trials import trials_of
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.edge_forward import edge_logits
from tests import tiny
from tests.methods.test_resume import discover


def one_at_a_time(name: str, effect_on: str, tau: float) -> tuple[dict[str, np.ndarray], int, int]:
    """The method as it is defined, by loops: masks, edges tested, edges of nodes not read."""
    model = tiny.model(name)
    c, batch = model.config, tiny.batch(model.config, shared=3)
    runs = plain_runs(c, model.params, batch)

    @jax.jit
    def loss(masks: mg.Masks) -> jax.Array:
        return -FIGURES[effect_on](edge_logits(c, model.params, masks, runs), runs).mean()

    kept = {kind: there.copy() for kind, there in existing(c).items()}
    now = float(loss(full_edges(c)))
    tests = unread = 0

    def test(kind: str, reader: tuple[int, ...], writers: list[int]) -> None:
        nonlocal now, tests, unread
        read = not writers or any(mask[..., w].any() for mask in kept.values() for w in writers)
        for writer in reversed(np.flatnonzero(kept[kind][reader]).tolist()):
            kept[kind][(*reader, writer)] = False
            if not read:
                unread += 1
                continue
            tests += 1
            then = float(loss({n: jnp.asarray(mask, jnp.float32) for n, mask in kept.items()}))
            if then - now >= tau:
                kept[kind][(*reader, writer)] = True
            else:
                now = then

    test(LOGITS_EDGES, (), [])
    for layer in reversed(range(c.layers)):
        heads = [1 + layer * (c.heads + 1) + head for head in range(c.heads)]
        test(MLP_EDGES, (layer,), [heads[-1] + 1])
        for kind in reversed(HEAD_EDGES):
            count = kept[kind].shape[1]
            for head in reversed(range(count)):
                each = c.heads // count
                test(kind, (layer, head), heads[head * each : (head + 1) * each])
    return kept, tests, unread


def found_by(name: str, effect_on: str, tau: float, at_once: int, **more: Any) -> Found:
    model = tiny.model(name)
    batch, order = tiny.batch(model.config, shared=3), order_of(model.config)
    trials = trials_of(model, batch, effect_on, order, at_once)
    return edges_removed(trials, tau, more.get("most_tests"), lambda record: None, None)


@pytest.mark.parametrize(
    ("name", "effect_on", "tau"),
    [
        *(("gpt2", "kl", 0.02), ("llama", "kl", 0.05), ("parallel", "score", 0.02)),
        *(("gemma2", "kl", 0.02), ("olmo2", "score", 0.02), ("llama", "prob_diff", 0.001)),
    ],
)
@pytest.mark.slow
def test_the_circuit_is_that_of_testing_edges_one_at_a_time(
    name: str, effect_on: str, tau: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, tests, unread = one_at_a_time(name, effect_on, tau)
    whole = edge_count(existing(tiny.model(name).config))
    assert tests + unread == whole and 10 < edge_count(expected) < 0.6 * whole
    monkeypatch.setattr(trials_module, "PROMPTS_AT_ONCE", 4)
    for at_once in (1, 5):
        found = found_by(name, effect_on, tau, at_once)
        assert (found.tests, found.done) == (tests, whole)
        masks = by_kind(tiny.model(name).config, found.kept)
        for kind, mask in expected.items():
            np.testing.assert_array_equal(masks[kind], mask, err_msg=kind)


def test_nodes_that_nothing_reads_lose_their_inputs_untested() -> None:
    # Of a group of query heads that share a key one that is read is enough.
    for name, effect_on, tau in (("llama", "kl", 0.05), ("gpt2", "kl", 1e9)):
        _, tests, unread = one_at_a_time(name, effect_on, tau)
        assert unread > 0
        if tau == 1e9:
            assert tests == 16 and unread == edge_count(existing(tiny.GPT2)) - 16


TOY = dataclasses.replace(tiny.GPT2, layers=1, heads=1, kv_heads=1)
NAMES = (
    *("m0->logits", "a0.h0->logits", "input->logits", "a0.h0->m0", "input->m0"),
    *("input->a0.h0<v>", "input->a0.h0<k>", "input->a0.h0<q>"),
)
"""All eight edges, in the order of tests."""


@dataclasses.dataclass
class Toy:
    """Trials whose losses are sums of the costs of what is not kept."""

    costs: dict[str, float]
    at_once: int
    tried: list[str] = dataclasses.field(default_factory=list)

    @property
    def order(self) -> Any:
        return order_of(TOY)

    @property
    def model(self) -> Any:
        return dataclasses.replace(tiny.model("gpt2"), config=TOY)

    def losses(self, kept: np.ndarray, begin: int, stops: list[int]) -> np.ndarray:
        self.tried += [NAMES[stop] for stop in stops if stop >= 0]
        rows = []
        for stop in stops:
            row = kept.copy()
            row[self.order.edges[begin : stop + 1]] = False
            rows.append(set(edge_names(TOY, by_kind(TOY, row))))
        return np.array([sum(c for n, c in self.costs.items() if n not in row) for row in rows])

    def said(self, loss: float) -> dict[str, float]:
        return {"kl": loss}


@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("costs", "kept", "tests"),
    [
        # What costs τ or more stays, what helps to remove goes, what is read is tested.
        (
            {"m0->logits": 1.0, "a0.h0->m0": 0.5, "input->a0.h0<v>": 0.6, "input->m0": -2.0},
            ("m0->logits", "a0.h0->m0", "input->a0.h0<v>"),
            8,
        ),
        # A decrease makes no room for others: each is measured against what is left before it.
        (
            {"m0->logits": -3.0, "a0.h0->logits": 0.5, "input->logits": 0.49},
            ("a0.h0->logits",),
            # Nothing reads the MLP: its two inputs go untested; those of the head do not.
            6,
        ),
        # Nothing is read but the input.
        ({"input->logits": 9.0, "a0.h0->m0": 9.0, "input->a0.h0<q>": 9.0}, ("input->logits",), 3),
    ],
)
def test_by_hand(costs: dict[str, float], kept: tuple[str, ...], tests: int, at_once: int) -> None:
    toy = Toy(costs, at_once)
    assert [next(edge_names(TOY, by_kind(TOY, only(edge)))) for edge in range(8)] == list(NAMES)
    found = edges_removed(toy, 0.5, None, lambda record: None, None)  # type: ignore[arg-type]
    assert set(edge_names(TOY, by_kind(TOY, found.kept))) == set(kept)
    assert (found.tests, found.done) == (tests, 8)
    left = sum(c for name, c in costs.items() if name not in kept)
    # Edges that were not tested may have costs here only because the toy knows no graph.
    if tests == 8:
        assert found.loss == pytest.approx(left)
    if at_once == 1:
        assert len(toy.tried) == tests


def only(edge: int) -> np.ndarray:
    order = order_of(TOY)
    row = np.zeros(len(order.ranks), bool)
    row[order.edges[edge]] = True
    return row


def test_after_so_many_tests_the_rest_is_kept() -> None:
    model = tiny.model("gpt2")
    data, key = tiny.data(model.config), jax.random.key(0)
    whole = found_by("gpt2", "kl", 0.02, 5)
    circuits = []
    for at_once in (2, 5):
        config = AcdcConfig(tau=0.02, most_tests=30, prompts=6, at_once=at_once)
        circuits.append(mg.discover(key, model, data, config))
        said = circuits[-1].metadata
        assert said["acdc"]["tests"] == 30 and said["acdc"]["left"] > 0
        assert said["note"].startswith("Stopped after 30 tests, as most_tests says: the other ")
        assert circuits[-1].scores is None and said["level"] == "edge"
    for kind, mask in circuits[0].masks.items():
        np.testing.assert_array_equal(mask, circuits[1].masks[kind])
    # Those that were tested are decided as in the whole search.
    some = found_by("gpt2", "kl", 0.02, 5, most_tests=30)
    edges = order_of(model.config).edges
    assert some.tests == 30
    np.testing.assert_array_equal(some.kept[edges[: some.done]], whole.kept[edges[: some.done]])
    assert some.kept[edges[some.done :]].all()


def test_a_search_that_was_stopped_goes_on_to_the_same_circuit(tmp_path: Path) -> None:
    config = AcdcConfig(tau=0.02)
    said: list[Any] = []
    discover(tmp_path / "whole", config, said=said)
    expected = discover(None, config)
    steps = [record["step"] for record in said if "step" in record]
    for after in (1, steps[len(steps) // 2]):
        with pytest.raises(KeyboardInterrupt):
            discover(tmp_path / "parts", config, stop_after=after)
    again: list[Any] = []
    got = discover(tmp_path / "parts", config, said=again)
    assert again == said[-len(again) :] and 0 < len(again) < len(said)
    for kind, mask in expected.masks.items():
        np.testing.assert_array_equal(mask, got.masks[kind])
    assert got.metadata["acdc"] == expected.metadata["acdc"]
    # Every layer is told of once, and the bar reaches its end.
    assert len([record for record in said if "text" in record]) == 4
    assert said[-1]["step"] == said[-1]["of"] == edge_count(existing(tiny.GPT2))


def test_values_that_cannot_be_meant_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"tau": 0.0}, "tau must be greater than 0, got 0.0"),
        ({"effect_on": "loss"}, "effect_on must be one of score, kl, prob_diff, got 'loss'"),
        ({"prompts": 0}, "prompts must be at least 1"),
        ({"most_tests": 0}, "most_tests must be at least 1"),
    )
    for wrong, told in cases:
        with pytest.raises(mg.MgnpError, match=told):
            AcdcConfig(**wrong)
    toy = Toy({"m0->logits": float("nan")}, 1)
    with pytest.raises(mg.MgnpError, match="tested on is nan for some circuit"):
        edges_removed(toy, 0.5, None, lambda record: None, None)  # type: ignore[arg-type]
