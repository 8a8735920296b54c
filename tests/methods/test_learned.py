"""Learned rankings: gates as defined, sizes met, the same bits again, and bad numbers named."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import READERS, edge_count, existing
from mgnp_jax.masks.granularities import ATTENTION_HEADS, MLP_HIDDEN
from mgnp_jax.masks.hard_concrete import THRESHOLD
from mgnp_jax.masks.levels import level_of
from mgnp_jax.methods.learned.config import Fixed, Learned
from mgnp_jax.methods.learned.edge_pruning import LINEAR, SQUARED, EdgePruningConfig
from mgnp_jax.methods.learned.hybrid import HybridConfig
from mgnp_jax.methods.learned.mattr import MattrConfig, MattrEdgesConfig
from mgnp_jax.methods.learned.soft_top import soft_top
from mgnp_jax.methods.learned.ugs import UgsConfig, partly_open
from mgnp_jax.passes.settings import Execution
from mgnp_jax.runs.states import States
from tests import tiny

SHORT: dict[str, Any] = {"steps": 6, "batch_size": 4, "log_every": 2, "validate_every": 3}
ALL: dict[str, Any] = {
    "edge-pruning": EdgePruningConfig(**SHORT),
    "ugs": UgsConfig(**SHORT, draws=3, at_once=2),
    "mattr": MattrConfig(**SHORT, level="node", keep=0.5),
    "mattr-neuron": MattrConfig(**SHORT, level="neuron", keep=0.5),
    "mattr-edges": MattrEdgesConfig(**SHORT, loss_on="prob_diff"),
}


def discover(config: Any, family: str = "gpt2", **others: Any) -> mg.Circuit:
    model = tiny.model(family)
    return mg.discover(jax.random.key(0), model, tiny.data(model.config), config, **others)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_soft_top_has_its_size_and_keeps_it(share: float) -> None:
    scores = 3 * jax.random.normal(jax.random.key(1), (200,))
    there = jnp.arange(200) % 3 > 0
    gates = soft_top(scores, jnp.float32(share), 0.7, there)
    assert float(gates.sum() / there.sum()) == pytest.approx(share, rel=1e-3)
    assert not gates[~there].any()
    order = jnp.argsort(scores[there])
    assert (jnp.diff(gates[there][order]) >= 0).all()
    # Whatever moves, the size stays.
    moved = jax.grad(lambda s: soft_top(s, jnp.float32(share), 0.7, there).sum())(scores)
    assert float(jnp.abs(moved).max()) < 1e-4


def test_a_soft_top_has_the_slope_of_small_changes() -> None:
    with jax.enable_x64(True):
        scores = 3 * jax.random.normal(jax.random.key(1), (20,), jnp.float64)
        weights = jax.random.normal(jax.random.key(2), (20,), jnp.float64)

        def value(scores: jax.Array) -> jax.Array:
            return (weights * soft_top(scores, jnp.float64(0.3), 0.7)).sum()

        found = jax.grad(value)(scores)
        step = 1e-3 * jnp.eye(20)
        expected = jnp.stack([(value(scores + s) - value(scores - s)) / 2e-3 for s in step])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_partly_open_gates_have_their_chance_and_slope() -> None:
    log_odds = jnp.array([-3.0, 0.0, 2.0])
    gates = partly_open(jax.random.key(0), log_odds, 40_000)
    p = jax.nn.sigmoid(log_odds)
    np.testing.assert_allclose(gates.mean(0), p, atol=0.01)
    between = (gates > 0) & (gates < 1)
    np.testing.assert_allclose(between.mean(0), p * (1 - p), atol=0.01)
    # Evenly between: its own mean is one half.
    np.testing.assert_allclose((gates * between).sum(0) / between.sum(0), 0.5, atol=0.02)

    def loss(p: jax.Array) -> jax.Array:
        return (
            (partly_open(jax.random.key(0), jnp.log(p) - jnp.log1p(-p), 40_000) ** 2).mean(0).sum()
        )

    # The slope of m² between is 2m, one on average.
    np.testing.assert_allclose(jax.grad(loss)(p), 1.0, atol=0.05)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_bits_and_the_size(name: str) -> None:
    config = ALL[name]
    first, again = discover(config), discover(config)
    assert first.scores is not None and again.scores is not None
    chex.assert_trees_all_equal(first.masks, again.masks)
    chex.assert_trees_all_equal(first.scores, again.scores)
    other = mg.discover(*(jax.random.key(1), tiny.model("gpt2"), tiny.data(tiny.GPT2), config))
    assert other.scores is not None
    assert any((first.scores[n] != other.scores[n]).any() for n in first.scores)
    assert first.metadata["validation"]["step"] == config.steps
    if config.of_edges:
        # What leads nowhere is left out, and after six steps much does.
        assert 0 < edge_count(first.masks) <= config.keep * edge_count(existing(tiny.GPT2)) + 0.5


@pytest.mark.parametrize(
    ("family", "keep"),
    [(name, keep) for name in ("gpt2", "llama", "parallel") for keep in (0.1, 0.4)]
    + [("gemma2", 0.1), ("olmo2", 0.4)],
)
def test_edge_pruning_meets_its_size(family: str, keep: float) -> None:
    said: list[Any] = []
    config = EdgePruningConfig(
        **{**SHORT, "steps": 120, "validate_every": 120, "batch_size": 4}, keep=keep
    )
    circuit = discover(config, family, on_record=said.append)
    config_of = tiny.model(family).config
    there = existing(config_of)
    share = edge_count(circuit.masks) / edge_count(there)
    # What leads nowhere is left out, and the next edge may bring two; one is a point of so few.
    assert keep - 0.03 < share <= keep + 0.005
    steps = [record for record in said if "edges_open" in record]
    assert steps[-1]["edges_aimed_at"] == pytest.approx(keep, abs=0.5 / edge_count(there))
    assert steps[0]["edges_open"] > 0.99
    assert abs(steps[-1]["edges_open"] - keep) < 0.25
    assert all(not np.asarray(circuit.masks[n])[~there[n]].any() for n in READERS)


def test_edge_pruning_reaches_gates_that_start_far_up() -> None:
    # None of the drawn gates is ever less than one at such a log-alpha, so none has a slope.
    far = {**SHORT, "steps": 150, "validate_every": 150, "initial_log_alpha": 30.0}
    open_at_last = {}
    for decay in (0.01, 0.0):
        said: list[Any] = []
        discover(EdgePruningConfig(**far, keep=0.1, weight_decay=decay), on_record=said.append)
        open_at_last[decay] = [r["edges_open"] for r in said if "edges_open" in r][-1]
    assert open_at_last[0.0] == 1.0
    assert open_at_last[0.01] < 0.7


def test_a_size_that_training_did_not_come_to_is_said() -> None:
    # In six steps no gate comes down from where it starts.
    config = EdgePruningConfig(**SHORT, keep=0.1)
    told = "its gates add up to 100% of the edges, where "
    assert told in discover(config).metadata["note"]
    far = config.note({"edges_open": 0.47, "edges_aimed_at": 0.0326})
    assert "add up to 47% of the edges, where 3.26% were aimed at" in far and "--steps" in far
    assert config.note({"edges_open": 0.06, "edges_aimed_at": 0.0326}) == ""


def test_the_size_is_that_of_the_gates_that_are_drawn() -> None:
    config, there = EdgePruningConfig(**SHORT), jax.device_put(existing(tiny.GPT2))
    moved = config.first(jax.random.key(0), tiny.GPT2)
    moved["log_alpha"] = jax.tree.map(jnp.zeros_like, moved["log_alpha"])
    fixed, drawn = Fixed(there, jnp.float32(1), jnp.float32(0.1)), []

    def run(masks: Any) -> jax.Array:
        drawn.append(masks)
        return jnp.zeros(())

    _, told = config.loss(moved, fixed, jax.random.key(3), jnp.int32(6), run)
    total = sum(float(leaf.sum()) for leaf in drawn[0].values())
    assert told["edges_open"] == pytest.approx(total / edge_count(there), rel=1e-5)


def test_multipliers_climb_while_the_size_is_off() -> None:
    config = EdgePruningConfig(**SHORT, warmup=0)
    moved = config.first(jax.random.key(0), tiny.GPT2)
    there = jax.device_put(existing(tiny.GPT2))
    fixed = Fixed(there, jnp.float32(1), jnp.float32(0.1))

    def loss(moved: Any) -> jax.Array:
        run = lambda masks: jnp.zeros(())  # noqa: E731
        return config.loss(moved, fixed, jax.random.key(0), jnp.int32(6), run)[0]

    optimiser = config.optimiser()
    gradient = jax.grad(loss)(moved)
    # All edges are open, fewer are aimed at: negative until the gates give way.
    assert gradient["multipliers"][LINEAR] < 0 < gradient["multipliers"][SQUARED]
    updates: Any = optimiser.update(gradient, optimiser.init(moved), moved)[0]
    assert updates["multipliers"][LINEAR] == pytest.approx(-config.multiplier_rate, rel=1e-3)
    assert updates["multipliers"][SQUARED] == pytest.approx(config.multiplier_rate, rel=1e-3)


@pytest.mark.parametrize(("steps", "decay"), [(6000, 0.01), (3000, 0.01), (600, 0.05), (6, 0.1)])
def test_log_alpha_and_multipliers_decay(steps: int, decay: float) -> None:
    config = EdgePruningConfig(**{**SHORT, "steps": steps, "warmup": 0.0})
    moved = config.first(jax.random.key(0), tiny.GPT2)
    moved["multipliers"] = {LINEAR: jnp.float32(3), SQUARED: jnp.float32(5)}
    optimiser, none = config.optimiser(), jax.tree.map(jnp.zeros_like, moved)
    updates: Any = optimiser.update(none, optimiser.init(moved), moved)[0]
    fallen = jax.tree.map(lambda now, by: -by / now, moved, updates)
    for leaf in fallen["log_alpha"].values():
        np.testing.assert_allclose(leaf, config.learning_rate * decay, rtol=1e-3)
    # As published, however long the run: they are to climb as far as it takes.
    for leaf in fallen["multipliers"].values():
        assert leaf == pytest.approx(config.multiplier_rate * 0.01, rel=1e-3)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny.model("gpt2")
    scores = mg.discover(
        *(jax.random.key(0), model, tiny.data(model.config), mg.METHODS["nap"](keep=0.5))  # type: ignore[call-arg]
    )
    folder = tmp_path_factory.mktemp("nodes") / "circuit"
    scores.save(folder)
    return folder


def test_a_hybrid_keeps_edges_between_kept_nodes_alone(nodes: Path) -> None:
    between = level_of(masks := mg.load_circuit(nodes).masks).edges(tiny.GPT2, masks)
    hybrid = discover(HybridConfig(**SHORT, within=nodes, keep=0.5))
    for name, mask in hybrid.masks.items():
        assert not (np.asarray(mask) & ~np.asarray(between[name])).any()
    assert 0 < edge_count(hybrid.masks) <= 0.5 * edge_count(between) + 0.5
    with pytest.raises(mg.MgnpError, match="none is named: pass the folder"):
        discover(HybridConfig(**SHORT))
    everything = mg.Circuit(masks=jax.device_put(existing(tiny.GPT2)), metadata={})
    everything.save(nodes.parent / "everything")
    with pytest.raises(mg.MgnpError, match="like asks for .* edges, but between the nodes"):
        discover(HybridConfig(**SHORT, within=nodes, like=nodes.parent / "everything"))


def test_a_hybrid_keeps_what_is_worth_its_price(nodes: Path) -> None:
    masks = mg.load_circuit(nodes).masks
    between = edge_count(level_of(masks).edges(tiny.GPT2, masks))
    free = discover(HybridConfig(**SHORT, within=nodes, price=0.0))
    assert edge_count(free.masks) == between
    dear = {**SHORT, "steps": 30, "learning_rate": 0.5, "warmup": 0.0}
    found = discover(HybridConfig(**dear, within=nodes, price=10.0))
    assert edge_count(found.masks) < 0.2 * between
    some = discover(HybridConfig(**dear, within=nodes, price=0.05))
    assert some.scores is not None
    for name, mask in some.masks.items():
        assert (np.asarray(some.scores[name])[np.asarray(mask)] > THRESHOLD).all()
    assert found.metadata["validation"]["kept"]["logits_edges"] < 1
    with pytest.raises(mg.MgnpError, match="price must be a number from 0 on, got -1"):
        HybridConfig(within=nodes, price=-1.0)


def test_like_another_circuit_means_as_many_edges_or_nodes(nodes: Path) -> None:
    masks = mg.load_circuit(nodes).masks
    edges = edge_count(level_of(masks).edges(tiny.GPT2, masks))
    found = discover(EdgePruningConfig(**SHORT, like=nodes)).masks
    assert 0.8 * edges <= edge_count(found) <= edges
    found = discover(MattrConfig(**SHORT, like=nodes)).masks
    for name in (ATTENTION_HEADS, MLP_HIDDEN):
        assert found[name].sum() == masks[name].sum()


@pytest.mark.parametrize("name", [*ALL, "hybrid"])
def test_a_search_that_was_stopped_goes_on_to_the_same_ranking(
    name: str, nodes: Path, tmp_path: Path
) -> None:
    config = HybridConfig(**SHORT, within=nodes) if name == "hybrid" else ALL[name]
    model = tiny.model("gpt2")
    expected = discover(config)
    for after in (1, 4, None):
        with contextlib.closing(States(tmp_path, every=1e6)) as states:

            def on_record(record: Any, states: States = states, after: Any = after) -> None:
                if after is not None and record.get("step", 0) >= after:
                    states._stop.asked = 2

            asked = (jax.random.key(0), model, tiny.data(model.config), config)
            if after is None:
                got = mg.discover(*asked, saves=states)
                continue
            with pytest.raises(KeyboardInterrupt):
                mg.discover(*asked, on_record=on_record, saves=states)
    chex.assert_trees_all_equal(got.scores, expected.scores)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    assert got.metadata["validation"] == expected.metadata["validation"]


@pytest.mark.parametrize("name", ["edge-pruning", "mattr"])
@pytest.mark.parametrize("execution", [{"accumulate": 2}, {"cache": "batch"}, {"cache_on": "disk"}])
def test_how_passes_are_run_changes_little_or_nothing(name: str, execution: dict[str, Any]) -> None:
    config = dataclasses.replace(ALL[name], learning_rate=0.01)
    expected = discover(config).scores
    got = discover(dataclasses.replace(config, execution=Execution(**execution))).scores
    assert got is not None and expected is not None
    if "cache_on" in execution:
        chex.assert_trees_all_equal(got, expected)
    finite = {n: np.where(np.isfinite(leaf), leaf, 0) for n, leaf in got.items()}
    wanted = {n: np.where(np.isfinite(leaf), leaf, 0) for n, leaf in expected.items()}
    chex.assert_trees_all_close(finite, wanted, atol=1e-3)


def test_ctrl_c_brings_the_circuit_by_then() -> None:
    def stop(record: Any) -> None:
        if record.get("step") == 3:
            raise KeyboardInterrupt

    with pytest.raises(mg.Interrupted) as stopped:
        discover(ALL["edge-pruning"], on_record=stop)
    assert stopped.value.circuit.metadata["training"]["interrupted"]


@pytest.mark.parametrize("name", ["edge-pruning", "mattr"])
def test_a_number_that_is_none_is_named(name: str) -> None:
    model = tiny.model("gpt2")
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
    broken = dataclasses.replace(model, params=params)
    with pytest.raises(mg.MgnpError, match="not a number at step 1, on training prompts"):
        mg.discover(jax.random.key(0), broken, tiny.data(model.config), ALL[name])


def test_values_that_cannot_be_meant_are_refused() -> None:
    for build, match in (
        (lambda: EdgePruningConfig(steps=0), "steps must be a number greater than 0"),
        (lambda: EdgePruningConfig(ramp=2), r"ramp must lie in \[0, 1\]"),
        (lambda: UgsConfig(draws=0), "draws must be a number greater"),
        (lambda: MattrConfig(temperature=0), "temperature must be a number greater"),
        (lambda: MattrEdgesConfig(least=1), "least must lie between"),
        (lambda: EdgePruningConfig(execution=Execution(cache="off")), "cache must be dataset"),
        (lambda: UgsConfig(execution=Execution(accumulate=3)), "must divide batch_size"),
        (lambda: UgsConfig(penalty=float("nan")), "penalty must be a number from 0 on"),
        (lambda: EdgePruningConfig(learning_rate=float("nan")), "learning_rate must be a number"),
        (lambda: EdgePruningConfig(validation_prompts=0), "validation_prompts must be a number"),
        (lambda: MattrConfig(loss_on="both"), "loss_on must be one of"),  # type: ignore[arg-type]
        (lambda: MattrConfig(level="edge"), "level must be one of"),  # type: ignore[arg-type]
    ):
        with pytest.raises(mg.MgnpError, match=match):
            build()
    assert issubclass(EdgePruningConfig, Learned)


def test_scores_that_are_no_numbers_are_refused() -> None:
    model = tiny.model("gpt2")
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
    broken = dataclasses.replace(model, params=params)
    for name in ("eap", "nap", "node-patching"):
        with pytest.raises(mg.MgnpError, match="scores are not numbers"):
            mg.discover(jax.random.key(0), broken, tiny.data(model.config), mg.METHODS[name]())


def test_another_circuit_counts_as_what_it_is_not_where_it_lies(tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    asked = (jax.random.key(0), model, tiny.data(model.config))
    for name, keep in (("nodes", 0.3), ("moved", 0.3), ("other", 0.6)):
        config = mg.METHODS["magnitude"](keep=keep)  # type: ignore[call-arg]
        mg.discover(*asked, config).save(tmp_path / name)

    def found(name: str) -> mg.Circuit:
        with contextlib.closing(States(tmp_path / "states")) as states:
            config = EdgePruningConfig(**SHORT, like=tmp_path / name)
            return mg.discover(*asked, config, saves=states)

    chex.assert_trees_all_equal(found("nodes").masks, found("moved").masks)
    with pytest.raises(mg.MgnpError, match="of a search with another settings"):
        found("other")
