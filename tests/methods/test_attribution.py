"""Attribution: equal to gradients by other ways, complete along a path, nested in size."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import heads_used
from mgnp_jax.masks.edges import edge_count, existing, full_edges
from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.methods.attribution.config import EapConfig, EapIgConfig, NapConfig, NapIgConfig
from mgnp_jax.metrics.figures import FIGURES
from mgnp_jax.metrics.scores import score
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.effects import EDGES, NODES, Kind, effects
from mgnp_jax.passes.effects import Path as Points
from tests import tiny
from tests.passes.test_edge_forward import slow_logits

AT_CLEAN = Points("inputs", (1.0,), 1)


def found_effects(name: str, kind: Any, figure: str, points: Points) -> dict[str, np.ndarray]:
    model = tiny.model(name)
    batch = tiny.batch(model.config, shared=3)
    key = jax.random.key(0)
    return effects(key, model, batch, kind, FIGURES[figure], points, lambda record: None)


def mean_score(logits: jax.Array, runs: Any) -> jax.Array:
    return score(runs.targets.scores["score"], logits).mean()


@pytest.mark.parametrize("name", tiny.each_family("gpt_neox", "gemma2", "olmo2"))
@pytest.mark.slow
def test_eap_is_the_first_order_change_of_every_edge(name: str) -> None:
    model = tiny.model(name)
    # In double precision: the loops' own rounding is half of what the bound allows.
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float64))
        params, full = double(model.params), double(full_edges(model.config))
        runs = plain_runs(model.config, params, tiny.batch(model.config, shared=3))

        def slow(masks: mg.Masks) -> jax.Array:
            return mean_score(slow_logits(model.config, params, masks, runs), runs)

        expected = jax.device_get(jax.grad(slow)(full))
    found = found_effects(name, EDGES, "score", AT_CLEAN)
    for kind, there in existing(model.config).items():
        scale = np.abs(expected[kind]).max()
        close = np.isclose(found[kind] / scale, expected[kind] / scale, rtol=0, atol=1e-5)
        assert close[there].all(), kind


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_nap_is_the_first_order_change_of_every_node(name: str) -> None:
    model = tiny.model(name)
    runs = plain_runs(model.config, model.params, tiny.batch(model.config, shared=3))

    def masked(masks: mg.Masks) -> jax.Array:
        return mean_score(masked_logits(model.config, model.params, masks, runs), runs)

    expected = jax.grad(masked)(mg.full_masks(model.config))
    found = found_effects(name, NODES, "score", AT_CLEAN)
    for kind, leaf in expected.items():
        scale = np.abs(leaf).max()
        np.testing.assert_allclose(found[kind] / scale, leaf / scale, atol=1e-4, err_msg=kind)


@pytest.mark.parametrize("kind", [EDGES, NODES], ids=["edges", "nodes"])
@pytest.mark.parametrize("figure", ["score", "kl", "prob_diff"])
def test_along_the_masks_effects_add_up_to_the_whole_change(figure: str, kind: Kind) -> None:
    model = tiny.model("gpt2")
    steps = 64
    points = tuple((k + 0.5) / steps for k in range(steps))
    found = found_effects("gpt2", kind, figure, Points("activations", points, steps))
    runs = plain_runs(model.config, model.params, tiny.batch(model.config, shared=3))
    before, after = (
        FIGURES[figure](
            circuit_logits(model.config, model.params, kind.full(model.config, value), runs), runs
        )
        for value in (0.0, 1.0)
    )
    change = float((after - before).mean())
    assert abs(change) > (0.05 if figure != "prob_diff" else 1e-3)
    assert sum(leaf.sum() for leaf in found.values()) == pytest.approx(change, rel=1e-2)


def test_random_points_are_each_prompts_own_and_come_from_the_key() -> None:
    model = tiny.model("gpt2")
    data = tiny.data(model.config)
    config = NapIgConfig(points="random", ig_steps=2)
    first, again, other = (
        mg.discover(jax.random.key(seed), model, data, config) for seed in (0, 0, 1)
    )
    assert first.scores is not None and again.scores is not None and other.scores is not None
    for name, leaf in first.scores.items():
        np.testing.assert_array_equal(leaf, again.scores[name])
    assert any((leaf != other.scores[name]).any() for name, leaf in first.scores.items())


def test_one_point_at_the_end_of_the_path_is_the_plain_method() -> None:
    model = tiny.model("llama")
    data, key = tiny.data(model.config), jax.random.key(0)
    pairs = ((EapConfig(), EapIgConfig(ig_steps=1)), (NapConfig(), NapIgConfig(ig_steps=1)))
    for plain, along in pairs:
        one, other = (mg.discover(key, model, data, config) for config in (plain, along))
        assert one.scores is not None and other.scores is not None
        for name, leaf in one.scores.items():
            np.testing.assert_array_equal(leaf, other.scores[name])


def test_sizes_are_met_and_nested() -> None:
    model = tiny.model("gpt2")
    circuit = mg.discover(jax.random.key(0), model, tiny.data(model.config), EapConfig(keep=0.5))
    assert circuit.metadata["level"] == "edge"
    whole = edge_count(existing(model.config))
    assert 0.4 * whole < edge_count(circuit.masks) <= 0.5 * whole
    smaller = circuit.at(edges=60)
    assert 40 < edge_count(smaller.masks) <= 60
    for name, mask in smaller.masks.items():
        assert not (np.asarray(mask) & ~np.asarray(circuit.masks[name])).any()
    assert heads_used(circuit.at(heads=3).masks) == 3
    nodes = mg.discover(jax.random.key(0), model, tiny.data(model.config), NapConfig())
    assert int(nodes.at(heads=5).masks[ATTENTION_HEADS].sum()) == 5
    sizes = mg.circuit_sizes(model.config, nodes.at(edges=60).masks)
    assert sizes["edges"]["active"] <= 60
    with pytest.raises(mg.MgnpError, match="pass one of keep, edges and heads"):
        nodes.at()
    for said in ({}, {"layers": 3}, {**nodes.metadata["graph"], "kv_heads": 0}):
        odd = dataclasses.replace(nodes, metadata={**nodes.metadata, "graph": said})
        with pytest.raises(mg.MgnpError, match="does not say of what model"):
            odd.at(edges=60)
    with pytest.raises(mg.MgnpError, match="ranks nothing"):
        dataclasses.replace(nodes, scores=None).at(keep=0.1)


def test_as_many_as_another_circuit_has(tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    data, key = tiny.data(model.config), jax.random.key(0)
    nodes = mg.discover(key, model, data, NapConfig(keep=0.5))
    nodes.save(tmp_path / "like")
    wanted = mg.circuit_sizes(model.config, nodes.masks)
    alike = mg.discover(key, model, data, EapConfig(like=tmp_path / "like"))
    assert 0.8 * wanted["edges"]["active"] <= edge_count(alike.masks) <= wanted["edges"]["active"]
    again = mg.discover(key, model, data, NapIgConfig(like=tmp_path / "like", ig_steps=2))
    assert mg.circuit_sizes(model.config, again.masks)["sizes"] == wanted["sizes"]


def test_what_ranks_nothing_is_refused() -> None:
    for wrong in (EapConfig, NapConfig):
        with pytest.raises(mg.MgnpError, match="gradient is zero"):
            wrong(effect_on="kl")
    EapConfig(effect_on="kl", gradient_at="corrupted")
    # The only point is the clean one.
    for along in ("inputs", "activations"):
        with pytest.raises(mg.MgnpError, match="nap-ig on kl .* gradient is zero.* more ig_steps"):
            NapIgConfig(effect_on="kl", along=along, ig_steps=1)
    NapIgConfig(effect_on="kl", points="midpoint", ig_steps=1)
    with pytest.raises(mg.MgnpError, match="ig_steps must be at least 1"):
        EapIgConfig(ig_steps=0)
    with pytest.raises(mg.MgnpError, match="random goes with along inputs"):
        NapIgConfig(along="activations", points="random")


@pytest.mark.parametrize(
    ("config", "setting", "known"),
    [
        (EapConfig, "effect_on", "score, kl, prob_diff"),
        (EapConfig, "gradient_at", "clean, corrupted"),
        (EapIgConfig, "points", "right, midpoint, random"),
        (NapIgConfig, "along", "inputs, activations"),
    ],
)
def test_a_name_that_is_none_of_the_choices_is_refused(
    config: Any, setting: str, known: str
) -> None:
    with pytest.raises(mg.MgnpError, match=f"{setting} must be one of {known}, got 'left'"):
        config(**{setting: "left"})
