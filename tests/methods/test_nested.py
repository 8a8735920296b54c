"""One run, every size: prices, rankings, and the circuits that are read off them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.circuit import binarise
from mgnp_jax.masks.edge_graph import edges_between
from mgnp_jax.masks.edges import Graph, edge_count, existing
from mgnp_jax.masks.hard_concrete import THRESHOLD
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.masks.levels import level_of
from mgnp_jax.masks.ranking import above, all_the_way, distinct
from mgnp_jax.methods.node_pruning.compaction import closed, still_open
from mgnp_jax.methods.node_pruning.gates import expected_open, sample_masks
from mgnp_jax.methods.node_pruning.nested import (
    PRICES,
    circuit_of,
    draw_prices,
    log_price_of,
)
from mgnp_jax.methods.node_pruning.objective import objective
from mgnp_jax.methods.node_pruning.prices import Nesting
from mgnp_jax.methods.node_pruning.state import first_trained
from mgnp_jax.metrics.scores import kl_divergence, score
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.runs.states import States
from tests import tiny

CONFIG = mg.DiscoverConfig(
    steps=16, batch_size=4, validate_every=8, log_every=4, learning_rate=0.5, nested=True
)


def find(config: mg.DiscoverConfig = CONFIG, family: str = "gpt2", **others: Any) -> mg.Circuit:
    model = tiny.model(family)
    return mg.discover(jax.random.key(0), model, tiny.data(model.config), config, **others)


def ranked_by(circuit: mg.Circuit, own: dict[str, Any]) -> mg.Circuit:
    return dataclasses.replace(circuit, scores=jax.device_put(all_the_way(own)), log_alpha=own)


def scores_of(circuit: mg.Circuit) -> mg.Masks:
    assert circuit.scores is not None
    return circuit.scores


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_each_part_of_the_range_has_one_price(bands: int) -> None:
    nesting = Nesting(least=0.5, most=8.0, slope=3.0, bands=bands)
    # Steps go through the bands in turn; together they have the whole range.
    drawn = [draw_prices(jax.random.key(0), nesting, 6, bands + step) for step in range(bands)]
    for band, (shift, _) in enumerate(drawn):
        assert (np.asarray(shift) >= -nesting.widest_shift(band) - 1e-5).all()
    shift = np.concatenate([prices.shift for prices in drawn])
    weight = np.concatenate([prices.weight for prices in drawn])
    logs = np.sort(np.asarray(shift)) / 3.0
    edges = np.linspace(math.log(0.5), math.log(8.0), 6 * bands + 1)
    assert (edges[:-1] <= logs + 1e-6).all() and (logs <= edges[1:] + 1e-6).all()
    np.testing.assert_allclose(weight, np.exp(-np.asarray(shift) / 3.0), rtol=1e-5)
    assert (np.diff(np.asarray(shift)) < 0).any(), "which prompt has which is drawn, too"


def test_at_a_price_of_one_the_objective_is_that_of_a_single_run(tiny_model: mg.Model) -> None:
    streams = plain_runs(tiny_model.config, tiny_model.params, tiny.batch(tiny_model.config))
    log_alpha = mg.full_masks(tiny_model.config, 0.5)
    one = Nesting(least=1 - 1e-7, most=1 + 1e-7)

    def run(config: mg.DiscoverConfig) -> Any:
        def loss(log_alpha: mg.Masks) -> jax.Array:
            rest = (config, tiny_model.config, tiny_model.params, streams, jnp.int32(9))
            return objective(log_alpha, jax.random.key(1), *rest)[0]

        return jax.value_and_grad(loss)(log_alpha)

    nested = run(dataclasses.replace(CONFIG, nesting=one))
    single = run(dataclasses.replace(CONFIG, nested=False))
    chex.assert_trees_all_close(nested, single, rtol=1e-4, atol=1e-6)


def test_neurons_cost_what_hidden_ones_do_parameter_for_parameter(any_family: mg.Model) -> None:
    c = any_family.config
    group = c.heads // c.kv_heads

    def parameters(name: str, *where: Any) -> int:
        """What the circuit of all other nodes lacks."""
        full = mg.full_masks(c)
        less = full | {name: full[name].at[where].set(0)}
        total, active = (mg.circuit_sizes(c, each)["parameters"]["active"] for each in (full, less))
        return total - active

    prices = mg.Penalties(mlp_hidden=0.5).of_model(c)
    per_parameter = 0.5 / parameters("mlp_hidden", 0, 0)
    # The value weights go where none of a group's heads has the neuron.
    some = parameters("attention_neurons", 0, slice(group), 0) / group
    assert prices["attention_neurons"] == pytest.approx(per_parameter * some)
    assert prices["mlp_output"] == pytest.approx(per_parameter * parameters("mlp_output", 0, 0))
    said = mg.Penalties(attention_neurons=0.25, mlp_output=0.0).of_model(c)
    assert (said["attention_neurons"], said["mlp_output"]) == (0.25, 0.0)


@pytest.mark.parametrize("loss", ["matched", "hinge"])
def test_what_a_prompt_loses_counts_over_its_price(tiny_model: mg.Model, loss: str) -> None:
    streams = plain_runs(tiny_model.config, tiny_model.params, tiny.batch(tiny_model.config))
    # So far open, and closed so far, that no price of the range changes a gate.
    log_alpha = {
        name: jnp.broadcast_to(
            jnp.where(jnp.arange(leaf.shape[-1]) % 2 > 0, 90.0, -90.0), leaf.shape
        )
        for name, leaf in mg.full_masks(tiny_model.config).items()
    }
    weights = {"kl_weight": 0.5, "score_weight": 0.25, "softened_weight": 0.75}
    config = dataclasses.replace(CONFIG, loss=loss, margin=20.0, temperature=2.0, **weights)
    free = {f.name: 0.0 for f in dataclasses.fields(config.penalties)}
    config = dataclasses.replace(config, penalties=type(config.penalties)(**free))
    rest = (config, tiny_model.config, tiny_model.params, streams, jnp.int32(9))
    key = jax.random.key(1)
    paid, terms = objective(log_alpha, key, *rest)
    prices = draw_prices(jax.random.fold_in(key, PRICES), config.nesting, 6, 9)
    masks = jax.tree.map(lambda leaf: (leaf > 0).astype(jnp.float32), log_alpha)
    rows = masked_logits(tiny_model.config, tiny_model.params, masks, streams)
    base, target = streams.base_logits, streams.targets.scores["score"]
    each = {"kl": kl_divergence(base, rows)}
    if loss == "hinge":
        each["hinge"] = 20.0 - score(target, rows)
        whole = 0.5 * each["kl"] + 0.25 * each["hinge"]
    else:
        off = jnp.abs(score(target, rows) - score(target, base))
        each["score_gap"] = off / jnp.abs(score(target, base)).mean()
        each["softened_kl"] = 2.0**2 * kl_divergence(base / 2.0, rows / 2.0)
        whole = 0.5 * (each["kl"] + 0.75 * each["softened_kl"]) + 0.25 * each["score_gap"]
    assert float(paid) == pytest.approx(float((whole * prices.weight).mean()), rel=1e-4)
    # What is logged is of all prompts alike.
    assert {*terms} - {"loss", "penalty", "kept"} == {*each}
    for name, values in each.items():
        assert float(values.mean()) > 0, name
        assert float(terms[name]) == pytest.approx(float(values.mean()), rel=1e-4), name


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_a_ranking_is_a_circuit_within_the_larger_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = mg.full_masks(tiny.GPT2)
    own = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in shapes.items()}
    ranking = all_the_way(own)
    larger = above(ranking, -np.inf)
    for cut in distinct(ranking)[:: 40 + seed]:
        masks = above(ranking, float(cut))
        chex.assert_trees_all_equal(apply_hierarchy(masks), masks)
        chex.assert_trees_all_equal(apply_hierarchy(above(own, float(cut))), masks)
        for name, mask in masks.items():
            assert not (mask & ~larger[name]).any()
        larger = masks


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_any_size_is_read_off_one_run_exactly(family: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    find(family=family).save(tmp_path / "saved")
    circuit = mg.load_circuit(tmp_path / "saved")
    scores = scores_of(circuit)
    numbers = distinct(scores)
    sizes: dict[str, Any] = {
        "keep": lambda masks: prunable_share(model.config, masks),
        "heads": lambda masks: int(masks["attention_heads"].sum()),
        "edges": lambda masks: edge_count(edges_between(Graph.of(model.config), masks)),
    }
    asked_for: list[tuple[str, Any]] = [("keep", 0.2), ("keep", 0.6), ("heads", 3), ("edges", 20)]
    for name, asked in asked_for:
        found = circuit.at(**{name: asked})
        size = sizes[name]
        assert size(found.masks) <= asked
        # The next node would be too much.
        kept = [np.asarray(scores[n])[np.asarray(m)] for n, m in found.masks.items()]
        least = float(np.concatenate(kept).min())
        below = numbers[numbers < least]
        assert not len(below) or size(above(scores, float(below[-1]))) > asked
        assert "figures" not in found.metadata and found.metadata["at"] == {name: asked}


@pytest.mark.parametrize("seed", range(4))
def test_fewer_heads_leave_room_for_more_of_the_rest(seed: int) -> None:
    model, rng = tiny.model("llama"), np.random.default_rng(seed)
    shapes = mg.full_masks(model.config)
    own = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in shapes.items()}
    circuit = ranked_by(find(family="llama"), own)
    graph = Graph.of(model.config)
    sizes: dict[str, Any] = {
        "keep": lambda masks: prunable_share(model.config, masks),
        "edges": lambda masks: edge_count(edges_between(graph, masks)),
    }
    heads, asked_for = 3, {"keep": (0.2, 0.4, 0.6), "edges": (10, 20, 40)}
    highest = circuit.at(heads=heads).masks["attention_heads"]
    for name, asked in asked_for.items():
        smaller: mg.Masks | None = None
        for most in asked:
            each: dict[str, Any] = {name: most}
            found, alone = circuit.at(**each, heads=heads), circuit.at(**each)
            assert sizes[name](found.masks) <= most
            assert found.metadata["at"] == each | {"heads": heads}
            chex.assert_trees_all_equal(apply_hierarchy(found.masks), found.masks)
            kept = {n: np.asarray(mask) for n, mask in found.masks.items()}
            assert not (kept["attention_heads"] & ~np.asarray(highest)).any()
            # All but heads that are too many stays, with what needs them.
            for n in ("mlp_blocks", "mlp_hidden", "mlp_output"):
                assert not (np.asarray(alone.masks[n]) & ~kept[n]).any()
            # Of as many heads, the larger has all of the smaller.
            for n, mask in (smaller or {}).items():
                assert not (np.asarray(mask) & ~kept[n]).any()
            smaller = found.masks
    # As where attention is not trained.
    alike = {n: np.full_like(leaf, 9.0) if n.startswith("att") else leaf for n, leaf in own.items()}
    same = ranked_by(circuit, alike)
    with pytest.raises(mg.MgnpError, match="heads must be at least 12 with this ranking, got 1"):
        same.at(keep=0.2, heads=1)
    for several in ({"keep": 0.2, "edges": 9}, {"keep": 0.2, "edges": 9, "heads": 2}, {}):
        with pytest.raises(mg.MgnpError, match="or heads beside one of the others; got"):
            circuit.at(**several)


def test_a_quality_is_read_off_a_saved_ranking(tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    data = tiny.data(model.config)
    find().save(tmp_path / "saved")
    circuit, asked = mg.load_circuit(tmp_path / "saved"), []

    def kl(each: mg.Circuit) -> float:
        asked.append(each)
        return mg.evaluate(model, each, data.validation)["kl"]

    def share(each: mg.Circuit) -> float:
        return prunable_share(model.config, each.masks)

    ranking = scores_of(circuit)
    cuts = [prunable_share(model.config, above(ranking, float(n))) for n in distinct(ranking)]
    shares = []
    for wanted in (0.3, 0.1, 0.01):
        found = circuit.at(max_kl=wanted, kl=kl)
        assert kl(found) <= wanted and found.metadata["at"]["max_kl"] == wanted
        # The largest that was found wanting is the next one by the ranking, but for a hundredth.
        rejected = max((c for c in asked if share(c) < share(found)), key=share)
        assert kl(rejected) > wanted
        between = [size for size in cuts if share(rejected) < size < share(found)]
        assert all(size > 0.98 * share(found) or size < 1.02 * share(rejected) for size in between)
        shares.append(share(found))
        asked.clear()
    assert shares == sorted(shares)
    whole = circuit.at(max_kl=1e-7, kl=kl)
    assert share(whole) == 1.0
    with pytest.raises(mg.MgnpError, match="max_kl must be a number of nats from 0 on, got -1"):
        circuit.at(max_kl=-1.0, kl=kl)
    with pytest.raises(mg.MgnpError, match="all that is ranked KL is 2 nats, wanted at most 1"):
        circuit.at(max_kl=1.0, kl=lambda _: 2.0)
    with pytest.raises(mg.MgnpError, match="KL of the circuit of .* is not a number"):
        circuit.at(max_kl=1.0, kl=lambda _: math.nan)
    wrong: list[dict[str, Any]] = [
        {"max_kl": 0.1},
        {"kl": kl},
        {"max_kl": 0.1, "kl": kl, "keep": 1},
    ]
    for asked_for in wrong:
        with pytest.raises(mg.MgnpError, match="pass max_kl with kl, .* and no size beside them"):
            circuit.at(**asked_for)
    with pytest.raises(mg.MgnpError, match="got max_kl=0.1, kl=.*, {'price': 1.0}"):
        circuit.at(max_kl=0.1, kl=kl, price=1.0)


def test_what_is_kept_is_the_circuit_of_the_price_asked_for() -> None:
    sizes = set()
    for price in (0.25, 1.0, 4.0):
        circuit = find(dataclasses.replace(CONFIG, penalty=price))
        assert (
            f"the circuit of price {price:g} by the ranking of step 16" in circuit.metadata["note"]
        )
        chex.assert_trees_all_equal(circuit.masks, circuit.at(price=price * (1 + 1e-6)).masks)
        # Log-alpha is that of a price of 1.
        one = binarise(circuit.log_alpha or {})
        chex.assert_trees_all_equal(circuit.at(price=1.0).masks, one)
        sizes.add(sum(int(np.asarray(mask).sum()) for mask in circuit.masks.values()))
    assert len(sizes) > 1


def test_what_is_not_trained_is_open_at_any_price(tiny_model: mg.Model) -> None:
    nesting = Nesting(least=1e-6, most=1e6, slope=1e3)
    config = dataclasses.replace(CONFIG, nesting=nesting, penalty=1e6)
    config = dataclasses.replace(config, granularities=("attention_heads",))
    masks = circuit_of(
        config, first_trained(config, tiny_model.config, jax.random.key(0)).log_alpha
    )
    kept = {name for name, mask in masks.items() if mask.all()}
    assert kept == {"mlp_blocks", "mlp_hidden", "mlp_output"}
    assert not masks["attention_heads"].any()


def test_gates_are_drawn_open_as_often_as_their_rank_says() -> None:
    # A node's own number is the logarithm of the price at which it is drawn open half of the time.
    config = dataclasses.replace(CONFIG, gates="first_order")
    prices = jnp.exp(jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0]))
    shift = jnp.repeat(config.nesting.slope * jnp.log(prices), 400)
    own = {"mlp_hidden": jnp.linspace(-1.0, 1.0, 5)[None]}
    log_alpha = {n: config.nesting.slope * leaf + THRESHOLD for n, leaf in own.items()}
    for noise in (1.0, 0.5):
        drawn = sample_masks(jax.random.key(0), log_alpha, config, noise, 2000, shift)["mlp_hidden"]
        often = np.asarray(drawn).reshape(5, 400, 5).mean(1)
        away = np.asarray(own["mlp_hidden"]) - np.log(np.asarray(prices))[:, None]
        expected = 1 / (1 + np.exp(-config.nesting.slope * away / noise))
        # Five standard errors of 400 draws.
        assert (np.abs(often - expected) < 5 * np.sqrt(0.25 / 400)).all()
        assert ((often > 0.5) == (away > 0))[np.abs(away) > 0.2].all()
    # At full noise that is the fraction that the penalty expects to be open.
    expected = expected_open(log_alpha, ("mlp_hidden",), shift)["mlp_hidden"]
    away = np.asarray(own["mlp_hidden"])[None] - np.asarray(shift)[:, None] / config.nesting.slope
    chance = 1 / (1 + np.exp(-config.nesting.slope * away))
    np.testing.assert_allclose(np.asarray(expected), chance.mean(), rtol=1e-4)


def test_what_cannot_be_met_loses_no_ranking() -> None:
    # Nothing tells heads apart that have not moved.
    untrained = dataclasses.replace(CONFIG, steps=1, learning_rate=1e-12, final_rate=1.0)
    found = find(dataclasses.replace(untrained, keep=0.3, heads=1))
    note = found.metadata["note"]
    assert "of 0.3 with at most 1 heads, which is not met: heads must be at least 12" in note
    assert "this is the circuit of that share alone;" in note
    free = find(untrained)
    chex.assert_trees_all_equal(found.masks, free.masks)
    chex.assert_trees_all_equal(found.log_alpha, free.log_alpha)
    small = find(dataclasses.replace(CONFIG, keep=1e-9)).metadata["note"]
    assert "of 1e-09, reached 0.0" in small and ": no circuit of the ranking is smaller" in small


def test_a_size_or_quality_asked_for_is_read_off() -> None:
    keep = find(dataclasses.replace(CONFIG, keep=0.3))
    assert keep.metadata["validation"]["target"]["reached"] <= 0.3
    chex.assert_trees_all_equal(keep.masks, keep.at(keep=0.3).masks)
    free = find()
    wanted = 0.5 * keep.metadata["validation"]["kl"]
    good = find(dataclasses.replace(CONFIG, max_kl=wanted))
    assert 0 < good.metadata["validation"]["target"]["reached"] <= wanted
    share = good.metadata["validation"]["prunable_kept"]
    chex.assert_trees_all_equal(good.masks, free.at(keep=share).masks)
    few = find(dataclasses.replace(CONFIG, keep=0.3, heads=2))
    chex.assert_trees_all_equal(few.masks, free.at(keep=0.3, heads=2).masks)
    assert "of 0.3 with at most 2 heads, reached 0." in few.metadata["note"]
    heads = find(dataclasses.replace(CONFIG, heads=2))
    chex.assert_trees_all_equal(heads.masks, free.at(heads=2).masks)
    assert heads.metadata["note"].startswith("Asked for at most 2 heads, kept ")
    # The same training, whatever is asked for.
    chex.assert_trees_all_equal(keep.log_alpha, free.log_alpha)
    chex.assert_trees_all_equal(few.log_alpha, free.log_alpha)
    chex.assert_trees_all_equal(good.log_alpha, free.log_alpha)


@pytest.mark.parametrize("asked", [{"keep": 0.9}, {"max_kl": 1e-3}], ids=["keep", "max_kl"])
def test_what_was_left_out_on_the_way_counts_where_it_is_asked_for(asked: dict[str, float]) -> None:
    # Hardly a price is low enough for circuits so large, and much is left out.
    config = dataclasses.replace(
        CONFIG,
        steps=60,
        warmup=0.0,
        nesting=Nesting(least=0.9, most=1.2),
        penalties=mg.Penalties(attention_heads=1.0, mlp_blocks=1.0, mlp_hidden=0.1),
        execution=mg.Execution(compile_cost=0.0, dtype="float32"),
    )
    records: list[dict[str, Any]] = []
    circuit = find(dataclasses.replace(config, **asked), on_record=records.append)
    assert any("cost" in record for record in records), "nothing was left out"
    model = tiny.model("gpt2")
    figures = mg.evaluate(model, circuit, tiny.data(model.config).validation)
    said = circuit.metadata["validation"]
    assert said["kl"] == pytest.approx(figures["kl"], rel=1e-4, abs=1e-6)
    if "max_kl" in asked:
        assert figures["kl"] <= 1e-3 and said["target"]["reached"] <= 1e-3


def test_what_is_looked_at_on_the_way_is_of_a_price_that_the_ranking_has() -> None:
    # Where a size is asked for, the price is not, and may lie below all of them.
    config = dataclasses.replace(
        CONFIG,
        steps=60,
        warmup=0.0,
        nesting=Nesting(least=4.0, most=5.0),
        penalties=mg.Penalties(attention_heads=0.3, mlp_blocks=0.3, mlp_hidden=0.03),
        keep=0.3,
        execution=mg.Execution(compile_cost=0.0, dtype="float32"),
    )
    left_out = False

    def stop(record: dict[str, Any]) -> None:
        nonlocal left_out
        left_out |= "cost" in record
        if left_out and "validation" in record:
            raise KeyboardInterrupt

    with pytest.raises(mg.Interrupted) as stopped:
        find(config, on_record=stop)
    circuit, model = stopped.value.circuit, tiny.model("gpt2")
    assert "the circuit of price 4 by the ranking" in circuit.metadata["note"]
    said = circuit.metadata["validation"]
    figures = mg.evaluate(model, circuit, tiny.data(model.config).validation)
    assert said["price"] == 4.0
    assert said["kl"] == pytest.approx(figures["kl"], rel=1e-4, abs=1e-6)


def test_a_quality_that_not_even_the_model_has_loses_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mgnp_jax.methods.node_pruning import extraction

    def off(*arguments: Any) -> dict[str, Any]:
        return {**measured(*arguments), "kl": 0.5}

    measured = extraction.measured
    monkeypatch.setattr(extraction, "measured", off)
    circuit = find(dataclasses.replace(CONFIG, max_kl=0.1))
    assert circuit.metadata["validation"]["target"] == {"max_kl": 0.1, "reached": 0.5}
    assert "reached 0.5 on validation prompts, all that is ranked" in circuit.metadata["note"]
    assert prunable_share(tiny.model("gpt2").config, circuit.masks) == 1.0


def test_a_run_that_is_stopped_says_that_its_circuit_is_not_what_was_asked_for() -> None:
    def stop(record: dict[str, Any]) -> None:
        if record.get("step", 0) == 8 and "validation" in record:
            raise KeyboardInterrupt

    with pytest.raises(mg.Interrupted) as stopped:
        find(dataclasses.replace(CONFIG, keep=0.3), on_record=stop)
    circuit = stopped.value.circuit
    assert circuit.metadata["training"]["interrupted"]
    assert "target" not in circuit.metadata["validation"]
    told = "Stopped before it met what was asked. Keeping the circuit of price 1 by the ranking of"
    assert circuit.metadata["note"].startswith(told)
    # All other sizes are there all the same.
    assert prunable_share(tiny.model("gpt2").config, circuit.at(keep=0.3).masks) <= 0.3


def test_looking_for_a_quality_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mgnp_jax.masks.circuit.good_enough", stopped)
    with pytest.raises(mg.Interrupted) as raised:
        find(dataclasses.replace(CONFIG, max_kl=0.3))
    circuit = raised.value.circuit
    training = circuit.metadata["training"]
    assert training["interrupted"] and training["steps"] == 16
    assert circuit.metadata["note"].startswith("Stopped before it met what was asked")


def test_what_is_left_out_is_what_no_price_of_the_range_would_keep() -> None:
    nesting = Nesting(least=0.25, most=4.0, slope=2.0)
    own = {name: np.array(leaf) for name, leaf in mg.full_masks(tiny.GPT2, 9.0).items()}
    # Closed at a price of 1 but open at the lowest one; and closed at that, too.
    lowest = THRESHOLD - nesting.widest_shift()
    own["mlp_hidden"][0, :2] = THRESHOLD - 2.0, lowest - 8.0
    log_alpha = jax.device_put(own)
    left = still_open(log_alpha, 0.5, 0.02, nesting.widest_shift())
    assert left["mlp_hidden"][0].tolist()[:2] == [True, False]
    assert not still_open(log_alpha, 0.5, 0.02)["mlp_hidden"][0, 0]
    own["mlp_hidden"][0, 1] = 9.0
    held = closed(jax.device_put(own), jax.device_put(left), nesting.widest_shift())
    scores = log_price_of(dataclasses.replace(CONFIG, nesting=nesting), held)
    assert scores["mlp_hidden"][0, 1] < math.log(nesting.least) < scores["mlp_hidden"][0, 2]


@pytest.mark.parametrize("votes", [1, 2])
def test_parts_of_a_batch_pay_what_the_whole_does(votes: int) -> None:
    model = tiny.model("gpt2")
    one = dataclasses.replace(CONFIG, steps=1, gates="soft", adam_eps=1e3, votes=votes)
    start = mg.full_masks(model.config, one.initial_log_alpha)
    # With so large an eps Adam's step is the gradient itself.
    whole, parts = (
        tiny.log_alpha(find(dataclasses.replace(one, execution=mg.Execution(accumulate=parts))))
        for parts in (1, 2)
    )
    for name, leaf in whole.items():
        moved, other = leaf - start[name], parts[name] - start[name]
        assert float(jnp.abs(moved).max()) > 0
        np.testing.assert_allclose(other, moved, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("votes", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_ranking(tmp_path: Path, votes: int) -> None:
    config = dataclasses.replace(CONFIG, votes=votes)
    expected = find(config)

    class Enough(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record.get("step") == 9:
            raise Enough

    with contextlib.closing(States(tmp_path, every=0.0)) as states:
        with pytest.raises(Enough):
            find(config, on_record=stop, saves=states)
    with contextlib.closing(States(tmp_path, every=1e6)) as states:
        found = find(config, saves=states)
    chex.assert_trees_all_equal(found.scores, expected.scores)
    chex.assert_trees_all_equal(found.masks, expected.masks)
    chex.assert_trees_all_equal(found.votes, expected.votes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": "batch"}, "draws must be prompt with nested, got batch"),
        ({"nested": False, "votes": 2}, "votes must be 1 without nested, got 2"),
        ({"votes": 0}, "votes must be greater than 0, got 0"),
        ({"votes": 2, "clip_norm": 1.0}, "clip_norm does not go with votes"),
        ({"keep": 0.1, "max_kl": 0.1}, "not for both"),
        ({"heads": 3, "max_kl": 0.1}, "not for both"),
        ({"heads": 0}, "heads must be greater than 0, got 0"),
        ({"heads": 2, "granularities": ("mlp_hidden",)}, "attention_heads is not among"),
        ({"nesting": Nesting(bands=17)}, "nesting.bands must be at most steps, got 17 and 16"),
        ({"nested": False, "keep": 0.1}, "keep, heads and max_kl are read off the ranking"),
        ({"nested": False, "heads": 3}, "keep, heads and max_kl are read off the ranking"),
        ({"nested": False, "max_kl": 0.1}, "keep, heads and max_kl are read off the ranking"),
        ({"train_embedding": True}, "train_embedding does not go with nested"),
        (
            {"penalty": 0.1},
            "penalty must lie within the prices of a nested run, 0.125 to 8 .* got 0.1",
        ),
    ],
)
def test_what_does_not_go_with_a_price_a_prompt_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_strangers_rankings_are_refused_or_made_circuits() -> None:
    circuit = find()
    free = dict.fromkeys(circuit.metadata["ranking"]["parameters"], 0)
    for parameters in (None, {}, free, free | {"query": 10**30}, free | {"query": True}):
        metadata = {**circuit.metadata, "ranking": {"parameters": parameters}}
        with pytest.raises(mg.MgnpError, match="ranking must have parameters, with a number"):
            dataclasses.replace(circuit, metadata=metadata).at(keep=0.5)
    rng = np.random.default_rng(0)
    any_numbers = {
        name: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
        for name, leaf in circuit.masks.items()
    }
    found = dataclasses.replace(circuit, scores=any_numbers).at(heads=3).masks
    chex.assert_trees_all_equal(apply_hierarchy(found), found)


def test_a_submission_has_the_edges_of_its_sizes(tmp_path: Path) -> None:
    circuit, model = find(), tiny.model("gpt2")
    mg.export_mib_submission(circuit, model.config, tmp_path / "sent")
    for file in (tmp_path / "sent").rglob("50-percent.json"):
        found = mg.import_mib(file, model.config)
        total = edge_count(existing(model.config))
        part = circuit.at(edges=total // 2).masks
        kept = edge_count(edges_between(Graph.of(model.config), part))
        assert edge_count(level_of(found.masks).edges(model.config, found.masks)) == kept
        return
    raise AssertionError("no such file")


@pytest.mark.parametrize(
    "nesting",
    [{"least": 0.0}, {"least": 9.0}, {"slope": 0.0}, {"bands": 0}],
)
def test_prices_that_are_none_are_refused(nesting: dict[str, Any]) -> None:
    with pytest.raises(mg.MgnpError, match="nesting"):
        Nesting(**nesting)
