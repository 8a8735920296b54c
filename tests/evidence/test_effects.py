"""Effects are what `evaluate` says without the node, and add up where nodes do not interact."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.chunks import Progress, load_of
from mgnp_jax.evidence.of_nodes import NodeCircuit
from mgnp_jax.evidence.removal import together
from mgnp_jax.masks.edges import Q_EDGES, existing, first_writer, full_edges
from mgnp_jax.masks.granularities import (
    ATTENTION_BLOCKS,
    ATTENTION_HEADS,
    MLP_BLOCKS,
    NEURONS,
)
from mgnp_jax.masks.hierarchy import kept_alone
from mgnp_jax.masks.levels import EDGE, NODE
from mgnp_jax.passes.ablation import ablation_values
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.tasks.metrics import logit_difference
from tests import tiny
from tests.evidence.conftest import LITTLE

EXACT = 7
CONFIG = mg.ExplainConfig(prompts=5, examples=3, neurons=EXACT)
"""Five prompts go three at a time."""
EXPLAINED = ("llama", "gemma2", pytest.param("olmo2", marks=pytest.mark.full))
"""Without a norm after attention, and with one."""


def batch(model: mg.Model) -> mg.Batch:
    return tiny.batch(model.config, rows=8, shared=3)


def some_nodes(model: mg.Model) -> mg.Masks:
    """Two thirds of everything, a whole MLP and all of a layer's attention closed."""
    rng = np.random.default_rng(3)
    masks: Any = {n: rng.random(m.shape) < 0.67 for n, m in mg.full_masks(model.config).items()}
    masks[ATTENTION_BLOCKS][:], masks[MLP_BLOCKS][:] = (True, False, True), (True, True, False)
    return jax.device_get(NODE.consistent(jax.device_put(masks)))


def some_edges(model: mg.Model) -> mg.Masks:
    rng = np.random.default_rng(3)
    masks: Any = {n: e & (rng.random(e.shape) < 0.6) for n, e in existing(model.config).items()}
    return jax.device_get(EDGE.consistent(masks))


@functools.cache
def evidence(name: str, level: str = "nodes") -> mg.Evidence:
    model = tiny.model(name)
    masks = some_nodes(model) if level == "nodes" else some_edges(model)
    return mg.explain(model, masks, batch(model), CONFIG)


@functools.cache
def figure(name: str) -> Any:
    """Score and KL of a circuit by `evaluate`, on the prompts that evidence is of."""
    model = tiny.model(name)

    def of(circuit: Any) -> np.ndarray:
        if not isinstance(circuit, mg.Circuit):
            level = NODE if ATTENTION_HEADS in circuit else EDGE
            masks = jax.tree.map(lambda m: np.asarray(m, bool), circuit)
            circuit = level.consistent(jax.device_put(masks))
        found = mg.evaluate(model, circuit, batch(model).take(slice(CONFIG.prompts)))
        return np.array([found["score"], found["kl"]])

    return of


def of_node(found: dict[str, Any], kind: str, index: tuple[int, ...]) -> np.ndarray:
    return np.array([found[kind][name][index] for name in ("score", "kl")])


def closed(masks: mg.Masks, kind: str, index: tuple[int, ...]) -> Any:
    mask = np.array(masks[kind])
    mask[index] = False
    return {**masks, kind: mask}


@pytest.mark.parametrize("name", EXPLAINED)
def test_removal_is_what_evaluate_says_without_the_node(name: str) -> None:
    masks, found, of = some_nodes(tiny.model(name)), evidence(name), figure(name)
    whole, neurons, largest = of(masks), 0, 0.0
    for kind, effects in found.removal.items():
        kept = np.asarray(masks[kind])
        np.testing.assert_array_equal(np.isnan(effects["score"]), ~kept)
        np.testing.assert_array_equal(np.isnan(effects["kl"]), ~kept)
        assert not (effects["exact"] & ~kept).any()
        if kind not in NEURONS:
            np.testing.assert_array_equal(effects["exact"], kept)
        else:
            neurons += int(effects["exact"].sum())
        for index in map(tuple, np.argwhere(effects["exact"])):
            expected = of(closed(masks, kind, index)) - whole
            largest = max(largest, float(np.abs(expected).max()))
            np.testing.assert_allclose(
                of_node(found.removal, kind, index), expected, atol=1e-5, err_msg=f"{kind} {index}"
            )
    assert neurons == EXACT and largest > 0.05


@pytest.mark.parametrize("name", EXPLAINED)
def test_addition_is_what_evaluate_says_of_the_node_alone(name: str) -> None:
    model, found, of = tiny.model(name), evidence(name), figure(name)
    masks = some_nodes(model)
    nothing, largest = of(mg.full_masks(model.config, 0.0)), 0.0
    for kind, effects in found.addition.items():
        wanted = np.asarray(masks[kind]) if kind in NEURONS else np.ones_like(effects["exact"])
        np.testing.assert_array_equal(np.isnan(effects["score"]), ~wanted)
        if kind not in NEURONS:
            assert effects["exact"].all()
        for index in map(tuple, np.argwhere(effects["exact"])):
            expected = of(kept_alone(model.config, kind, index)) - nothing
            largest = max(largest, float(np.abs(expected).max()))
            np.testing.assert_allclose(
                of_node(found.addition, kind, index), expected, atol=1e-5, err_msg=f"{kind} {index}"
            )
    assert largest > 0.05


def test_heads_and_blocks_of_another_family() -> None:
    model, masks = tiny.model("gpt2"), some_nodes(tiny.model("gpt2"))
    found = exactly(model, masks, batch(model).take(slice(CONFIG.prompts)))
    of, c = figure("gpt2"), model.config
    whole, nothing = of(masks), of(mg.full_masks(c, 0.0))
    for kind, each in found["removal"].items():
        np.testing.assert_array_equal(np.isnan(each[0]), ~np.asarray(masks[kind]))
        for index in map(tuple, np.argwhere(masks[kind])):
            expected = of(closed(masks, kind, index)) - whole
            np.testing.assert_allclose(each[(slice(None), *index)], expected, atol=1e-5)
    for kind, each in found["addition"].items():
        for index in np.ndindex(each.shape[1:]):
            expected = of(kept_alone(c, kind, index)) - nothing
            np.testing.assert_allclose(each[(slice(None), *index)], expected, atol=1e-5)


@pytest.mark.parametrize("name", EXPLAINED)
def test_other_neurons_have_the_slope_of_their_gate(name: str) -> None:
    step = 1e-2
    model, found = tiny.model(name), evidence(name)
    masks = jax.tree.map(lambda m: np.asarray(m, np.float32), some_nodes(model))
    runs = plain_runs(model.config, model.params, batch(model).take(slice(CONFIG.prompts)))

    @jax.jit
    def score(masks: mg.Masks) -> jax.Array:
        logits = masked_logits(model.config, model.params, masks, runs)
        return logit_difference(logits, runs.targets.answers).mean()

    def slope(base: Any, kind: str, index: tuple[int, ...]) -> float:
        ends = []
        for sign in (1, -1):
            gate = np.array(base[kind])
            gate[index] += sign * step
            ends.append(float(score({**base, kind: gate})))
        return (ends[0] - ends[1]) / (2 * step)

    for kind in NEURONS:
        roughly = ~found.removal[kind]["exact"] & (masks[kind] > 0)
        for index in list(map(tuple, np.argwhere(roughly)))[::9]:
            got = found.removal[kind]["score"][index]
            np.testing.assert_allclose(got, -slope(masks, kind, index), atol=2e-3)
            alone = kept_alone(model.config, kind, index)
            alone = {n: np.asarray(m, np.float32) for n, m in alone.items()}
            alone[kind][index] = 0
            got = found.addition[kind]["score"][index]
            np.testing.assert_allclose(got, slope(alone, kind, index), atol=2e-3)


def planted() -> tuple[mg.Model, np.ndarray]:
    """A model in which each node's effect is known: one layer, uniform attention, frozen norms.

    One coordinate of the residual stream outweighs all others, so that norms divide by it; heads
    read the mean of what is before them, and attention and MLP do not read each other.
    """
    c = dataclasses.replace(tiny.LLAMA, layers=1, parallel=True, kv_heads=4)
    params = jax.tree.map(np.array, tiny.lively_params(c))
    params["embeddings"]["token"]["embedding"][:, 0] = 1e4
    blocks = params["blocks"]
    for name in ("q", "k"):
        blocks["attention"][name]["kernel"][:] = 0
    # The coordinate that everything is divided by is not written to, nor read but for that.
    blocks["attention"]["o"]["kernel"][..., 0] = 0
    blocks["attention"]["v"]["kernel"][:, 0] = 0
    blocks["mlp"]["down"]["kernel"][:] = 0
    blocks["attention"]["o"]["kernel"][:] *= 1e4
    blocks["attention"]["v"]["kernel"][:] *= 50
    params["embeddings"]["head"]["kernel"][0] = 0
    for norm in (blocks["attention_norm"], params["embeddings"]["norm"]):
        norm["scale"][:] = 1
    model = mg.Model(name="planted", config=c, params=jax.device_put(params), tokenizer=None)
    b, scale = batch(model), 1e4 / np.sqrt(c.width)
    embedded = params["embeddings"]["token"]["embedding"] / scale
    head = params["embeddings"]["head"]["kernel"]
    effects = []
    for row in range(len(b)):
        length = int(b.attention_mask[row].sum())
        clean, other = (embedded[t[row, :length]].mean(0) for t in (b.clean, b.corrupted))
        right, wrong = b.targets.answers.tokens[row]
        values = (clean - other) @ blocks["attention"]["v"]["kernel"][0]
        parts = values.reshape(c.heads, c.head_width)
        out = blocks["attention"]["o"]["kernel"][0].reshape(c.heads, c.head_width, -1)
        written = np.einsum("he,hed->hd", parts, out) / scale
        effects.append(written @ (head[:, right] - head[:, wrong]))
    return model, np.mean(effects, 0)


def exactly(
    model: mg.Model, masks: mg.Masks, b: mg.Batch, constants: Any = None
) -> dict[str, dict[str, np.ndarray]]:
    """`removal` and `addition` [2, …] of heads and blocks, mean over prompts."""
    coarse = [n for n in mg.GRANULARITIES if n not in NEURONS]
    out = together({n: np.asarray(masks[n], bool) for n in coarse}, LITTLE.nodes)
    into = together({n: np.ones(np.shape(masks[n]), bool) for n in coarse}, LITTLE.nodes)
    runs = plain_runs(model.config, model.params, b, ablation_values=constants)
    ones, progress = np.ones(len(b), np.float32), Progress(0, lambda record: None)
    found = NodeCircuit(model, masks).exact(runs, ones, list(out), list(into), progress)
    return {of: {n: found[of][n] / len(b) for n in coarse} for of in ("removal", "addition")}


def test_removing_and_adding_agree_where_effects_are_known() -> None:
    model, expected = planted()
    found = exactly(model, jax.tree.map(np.asarray, mg.full_masks(model.config)), batch(model))
    assert np.abs(expected).max() > 5e-3
    added = found["addition"][ATTENTION_HEADS][0, 0]
    tolerance: Any = {"rtol": 2e-3, "atol": 2e-3 * float(np.abs(expected).max())}
    np.testing.assert_allclose(added, expected, **tolerance)
    np.testing.assert_allclose(found["removal"][ATTENTION_HEADS][0, 0], -added, **tolerance)
    whole = found["addition"][ATTENTION_BLOCKS][0, 0]
    np.testing.assert_allclose(whole, expected.sum(), **tolerance)
    np.testing.assert_allclose(found["addition"][MLP_BLOCKS][0], 0, atol=1e-5)


def test_effects_by_position_add_up_to_the_first_order_effect() -> None:
    model, found = tiny.model("llama"), evidence("llama")
    masks = {n: np.asarray(m, np.float32) for n, m in some_nodes(model).items()}
    b = batch(model).take(slice(CONFIG.examples))
    runs = plain_runs(model.config, model.params, b)

    @jax.jit
    @jax.grad
    def slopes(masks: mg.Masks) -> jax.Array:
        logits = masked_logits(model.config, model.params, masks, runs)
        return logit_difference(logits, runs.targets.answers).mean()

    expected = jax.device_get(slopes(masks))
    for kind in (ATTENTION_HEADS, MLP_BLOCKS):
        by_token, kept = found.positions[kind].astype(np.float64), masks[kind] > 0
        assert np.isnan(by_token[:, ~kept]).all()
        summed = np.nansum(by_token, -1).mean(0)
        np.testing.assert_allclose(summed[kept], -expected[kind][kept], atol=2e-3)
        assert np.abs(summed).max() > 0.05
    real = np.asarray(b.attention_mask)
    assert np.isnan(found.positions[MLP_BLOCKS].swapaxes(1, 2)[~real]).all()


def test_what_goes_together_follows_the_memory() -> None:
    model = tiny.model("gpt2")
    b = batch(model).take(slice(CONFIG.prompts))
    little = load_of(model, b, spans_of(b), 1e-3)
    assert (little.bytes, little.prompts, little.forward, little.nodes) == (0, 1, 1, 1)
    plenty = load_of(model, b, spans_of(b), 1e3)
    assert plenty.forward == plenty.prompts == len(b)
    assert [chunk.real for chunk in LITTLE.chunks(b)] == [3, 2]
    assert [chunk.weights.sum() for chunk in LITTLE.chunks(b)] == [3, 2]


def test_constants_of_pruned_nodes_are_kept_to() -> None:
    model, masks = tiny.model("llama"), some_nodes(tiny.model("llama"))
    b, c = batch(model).take(slice(CONFIG.prompts)), model.config
    constants = ablation_values(c, model.params, b, "mean", 8)
    circuit = mg.Circuit(masks=masks, metadata={}, ablation_values=constants)
    found, of = exactly(model, masks, b, constants), figure("llama")
    whole = of(circuit)
    for kind, index in ((ATTENTION_HEADS, (0, 1)), (MLP_BLOCKS, (1,))):
        assert masks[kind][index]
        less = jax.device_get(NODE.consistent(jax.device_put(closed(masks, kind, index))))
        expected = of(dataclasses.replace(circuit, masks=less)) - whole
        np.testing.assert_allclose(
            found["removal"][kind][(slice(None), *index)], expected, atol=1e-5
        )
        alone = dataclasses.replace(circuit, masks=kept_alone(c, kind, index))
        none = dataclasses.replace(circuit, masks=mg.full_masks(c, 0.0))
        added = found["addition"][kind][(slice(None), *index)]
        np.testing.assert_allclose(added, of(alone) - of(none), atol=1e-5)


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_node_of_a_circuit_of_edges_leaves_with_all_its_edges(name: str) -> None:
    model, found, of = tiny.model(name), evidence(name, "edges"), figure(name)
    c, masks = model.config, some_edges(model)
    whole, nothing = of(masks), of(full_edges(c, 0.0))
    nodes = NODE.consistent(EDGE.nodes(c, masks))
    for kind, heads in ((ATTENTION_HEADS, range(c.heads)), (MLP_BLOCKS, [c.heads])):
        kept = np.asarray(nodes[kind])
        np.testing.assert_array_equal(np.isnan(found.removal[kind]["score"]), ~kept)
        for layer in range(c.layers):
            for head in heads:
                index = (layer, head) if kind == ATTENTION_HEADS else (layer,)
                writer = first_writer(c, layer) + head
                if kept[index]:
                    less = {n: np.array(m) for n, m in masks.items()}
                    for mask in less.values():
                        mask[..., writer] = False
                    expected = of(less) - whole
                    got = of_node(found.removal, kind, index)
                    np.testing.assert_allclose(got, expected, atol=1e-5)
                alone = jax.tree.map(np.array, full_edges(c, 0.0))
                _connect(c, alone, layer, head, writer)
                got = of_node(found.addition, kind, index)
                np.testing.assert_allclose(got, of(alone) - nothing, atol=1e-5)
    assert all(np.isnan(found.removal[kind]["score"]).all() for kind in NEURONS)
    assert np.isnan(found.positions[MLP_BLOCKS]).all() and "circuit" not in found.patterns
    np.testing.assert_allclose(found.lens["circuit"]["score"][-1], whole[0], atol=1e-5)
    assert found.drivers and found.edges


def _connect(c: mg.ModelConfig, masks: mg.Masks, layer: int, head: int, writer: int) -> None:
    """The edges from the input to a node and from it to the logits."""
    masks["logits_edges"][writer] = 1
    if head == c.heads:
        masks["mlp_edges"][layer, 0] = 1
        return
    masks[Q_EDGES][layer, head, 0] = 1
    for name in ("k_edges", "v_edges"):
        masks[name][layer, head // (c.heads // c.kv_heads), 0] = 1
