"""Training: reproducible, compiled once, the weights untouched, the best circuit kept."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import weakref
from typing import Any, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import loop, schedule, state
from mgnp_jax.methods.node_pruning.config import GateKind
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.methods.training.batch_order import batch_order
from mgnp_jax.methods.training.work import Work, prepare
from mgnp_jax.passes import cached_runs, memory
from mgnp_jax.passes.keeping import keep_what_fits
from tests import tiny

CONFIG = mg.DiscoverConfig(
    steps=12, batch_size=4, validate_every=4, log_every=3, learning_rate=0.3, penalty=1.0
)


# Later steps magnify rounding, as gates flip. In float32 on accelerators, too.
ONE_STEP = dataclasses.replace(
    CONFIG,
    steps=1,
    gates="soft",
    nested=False,
    train_embedding=True,
    execution=mg.Execution(dtype="float32"),
)


def find(model: mg.Model, config: mg.DiscoverConfig = CONFIG, seed: int = 0) -> mg.Circuit:
    return mg.discover(jax.random.key(seed), model, tiny.data(model.config), config)


def test_same_seed_same_bits_and_another_seed_others(tiny_model: mg.Model) -> None:
    first, again, other = find(tiny_model), find(tiny_model), find(tiny_model, seed=1)
    chex.assert_trees_all_equal(first.log_alpha, again.log_alpha)
    chex.assert_trees_all_equal(first.masks, again.masks)
    a, b = (tiny.log_alpha(circuit)["mlp_hidden"] for circuit in (first, other))
    assert (a != b).any()


@pytest.mark.parametrize(("place", "laid_out"), [("host", True), ("disk", False)])
def test_no_batch_is_laid_out_ahead_where_nothing_but_files_has_room(
    place: Any, laid_out: bool
) -> None:
    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, execution=mg.Execution(cache_on=place))
    data = tiny.data(model.config)
    work = prepare(jax.random.key(0), model, data, config, lambda record: None)
    assert (work.ahead_of(1).ahead is not None) == laid_out
    jax.tree.map(np.testing.assert_array_equal, work.ahead_of(1).batch_of(1), work.batch_of(1))


def test_weights_are_bit_identical_before_and_after(tiny_model: mg.Model) -> None:
    before = jax.tree.map(np.array, tiny_model.params)
    find(tiny_model)
    chex.assert_trees_all_equal(tiny_model.params, before)


def test_optax_state_covers_log_alpha_alone(tiny_model: mg.Model) -> None:
    first = state.first_trained(CONFIG, tiny_model.config, jax.random.key(0))
    gates = mg.gate_count(tiny_model.config)
    sizes = [leaf.size for leaf in jax.tree.leaves(first.opt_state)]
    assert sum(n for n in sizes if n > 1) == 2 * gates
    chex.assert_trees_all_equal_shapes(first.log_alpha, mg.full_masks(tiny_model.config))


def test_one_compilation_serves_all_steps() -> None:
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        del duration
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    model = tiny.model("gpt2")
    config = dataclasses.replace(CONFIG, learning_rate=0.31)
    step: Any = train_step
    step.clear_cache()
    jax.monitoring.register_event_duration_secs_listener(listen)  # pyright: ignore
    after: list[int] = []

    def listen_to(record: dict[str, Any]) -> None:
        if not record.get("passing"):
            after.append(len(compiled))

    try:
        mg.discover(
            jax.random.key(0),
            model,
            tiny.data(model.config),
            dataclasses.replace(config, log_every=1),
            on_record=listen_to,
        )
    finally:
        jax.monitoring.clear_event_listeners()
    assert step._cache_size() == 1
    # Records: steps 1 to 4, a validation, … Nothing compiles after the first validation.
    assert after[0] > 0
    assert after[5] == after[-1], str(after)


def test_one_compilation_serves_the_plain_passes_of_all_splits() -> None:
    model = tiny.model("gpt2")
    # Batches of one differ most: a prompt of one split may be longer than all of another.
    data = tiny.data(model.config)
    run: Any = cached_runs._run
    run.clear_cache()
    splits = [data.train, data.validation]
    parts = keep_what_fits(model.config, model.params, splits, 1, mg.Execution())
    assert run._cache_size() == 1
    assert all(part.kept is not None for part in parts)


@functools.cache
def after_one_step(family: str) -> mg.Circuit:
    return find(tiny.model(family), ONE_STEP)


WAYS: dict[str, dict[str, Any]] = {
    "batch": {"cache": "batch"},
    "host": {"cache": "dataset", "cache_on": "host", "share_prefix": False},
    "off": {"cache": "off", "remat": True},
    "parts": {"accumulate": 2},
    "parts-off": {"accumulate": 4, "cache": "off"},
}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        *(pytest.param("gpt2", change, id=f"gpt2-{name}") for name, change in WAYS.items()),
        # A family's steps are the same in all of them; one that has all differences is enough.
        pytest.param("llama", WAYS["parts-off"], id="llama-parts-off"),
        *(
            pytest.param("llama", change, id=f"llama-{name}", marks=pytest.mark.full)
            for name, change in WAYS.items()
            if name != "parts-off"
        ),
    ],
)
def test_every_way_of_computing_gives_the_same_circuit(family: str, change: dict[str, Any]) -> None:
    kept = after_one_step(family)
    execution = dataclasses.replace(ONE_STEP.execution, **change)
    other = find(tiny.model(family), dataclasses.replace(ONE_STEP, execution=execution))
    chex.assert_trees_all_close(kept.log_alpha, other.log_alpha, atol=1e-5)
    for name in ("kl", "score", "score_gap"):
        measured = (c.metadata["validation"][name] for c in (kept, other))
        np.testing.assert_allclose(*measured, rtol=1e-5, atol=1e-6)


def test_bfloat16_trains_float32_log_alpha_on_half_the_weights() -> None:
    model = tiny.model("llama")
    circuit = find(model, dataclasses.replace(ONE_STEP, execution=mg.Execution(dtype="bfloat16")))
    assert {leaf.dtype for leaf in tiny.log_alpha(circuit).values()} == {np.dtype(np.float32)}
    exact = after_one_step("llama")
    # Adam's first step is a full one up or down: nearly all gates go the same way.
    same = [
        np.mean(np.sign(a - 2.0) == np.sign(tiny.log_alpha(exact)[name] - 2.0))
        for name, a in tiny.log_alpha(circuit).items()
    ]
    assert np.mean(same) > 0.9
    figures = mg.evaluate(model, circuit, tiny.data(model.config).validation)
    assert figures["kl"] == pytest.approx(circuit.metadata["validation"]["kl"], abs=0.1)


@pytest.mark.parametrize(
    "gates",
    # The default is made of two of the others, each of which has tests of its slope.
    [
        pytest.param(kind, marks=() if kind in ("mixed", "soft") else pytest.mark.full)
        for kind in get_args(GateKind)
    ],
)
def test_penalty_closes_gates_that_do_nothing(gates: str) -> None:
    model = tiny.model("gpt2")
    # The last MLP's hidden neuron 3 writes nothing, so nothing depends on it.
    blocks = {**model.params["blocks"]}
    down = blocks["mlp"]["down"]
    down = {**down, "kernel": down["kernel"].at[2, 3].set(0.0)}
    blocks["mlp"] = {**blocks["mlp"], "down": down}
    model = dataclasses.replace(model, params={**model.params, "blocks": blocks})
    config = dataclasses.replace(
        CONFIG, steps=60, gates=gates, nested=False, penalty=0.05, learning_rate=0.2, warmup=0.0
    )  # type: ignore[arg-type]
    circuit = find(model, config)
    assert (
        tiny.log_alpha(circuit)["mlp_hidden"][2, 3] == tiny.log_alpha(circuit)["mlp_hidden"].min()
    )


@pytest.mark.parametrize("nested", [True, False])
def test_records_and_metadata(nested: bool) -> None:
    tiny_model = tiny.model("llama")
    records: list[dict[str, Any]] = []
    circuit = mg.discover(
        jax.random.key(0),
        tiny_model,
        tiny.data(tiny_model.config),
        # As `evaluate`, on accelerators too.
        dataclasses.replace(CONFIG, nested=nested, execution=mg.Execution(dtype="float32")),
        on_record=records.append,
    )
    validations = [r["validation"] for r in records if "validation" in r]
    assert [v["step"] for v in validations] == [4, 8, 12]
    assert [r["step"] for r in records if "loss" in r] == [1, 4, 7, 10, 12]
    # Of rankings the last counts.
    kept = validations[-1] if nested else min(validations, key=lambda v: v["objective"])
    assert circuit.metadata["validation"] == kept
    figures = mg.evaluate(tiny_model, circuit, tiny.data(tiny_model.config).validation)
    assert figures["kl"] == pytest.approx(kept["kl"], abs=1e-5)
    assert circuit.metadata["training"]["gates"] == mg.gate_count(tiny_model.config)
    assert circuit.metadata["config_hash"] == tiny_model.config.hash()
    assert circuit.metadata["training"]["steps"] == 12
    chex.assert_trees_all_equal(circuit.masks, mg.binarise(circuit.log_alpha))


def test_softened_answers_are_trained_on() -> None:
    model = tiny.model("gpt2")
    circuits = []
    for weight in (0.0, 0.3):
        records: list[dict[str, Any]] = []
        config = dataclasses.replace(CONFIG, nested=False, softened_weight=weight)
        data = tiny.data(model.config)
        key = jax.random.key(0)
        circuits.append(mg.discover(key, model, data, config, on_record=records.append))
        steps = [record for record in records if "loss" in record]
        assert all(("softened_kl" in record) == (weight > 0) for record in steps)
        terms = config.kl_weight * (steps[0]["kl"] + weight * steps[0].get("softened_kl", 0.0))
        terms += config.score_weight * steps[0]["score_gap"]
        # The first step comes before any price.
        assert steps[0]["loss"] == pytest.approx(terms, rel=1e-5)
    plain, soft = (tiny.log_alpha(circuit)["mlp_hidden"] for circuit in circuits)
    assert (plain != soft).any()


def test_interrupted_training_raises_with_the_best_so_far() -> None:
    model = tiny.model("gpt2")

    def stop(record: dict[str, Any]) -> None:
        if record.get("step", 0) >= 6:
            raise KeyboardInterrupt

    data = tiny.data(model.config)
    # A KeyboardInterrupt, so that a loop over seeds stops.
    with pytest.raises(KeyboardInterrupt) as stopped:
        mg.discover(jax.random.key(0), model, data, CONFIG, on_record=stop)
    assert isinstance(stopped.value, mg.Interrupted)
    circuit = stopped.value.circuit
    assert circuit.metadata["training"]["interrupted"] and circuit.metadata["model"] == model.name
    assert circuit.metadata["validation"]["step"] == 4


def test_embedding_gate_is_trained_only_when_asked() -> None:
    model = tiny.model("gpt2")
    assert "embedding" not in find(model).masks
    circuit = find(model, dataclasses.replace(CONFIG, nested=False, train_embedding=True))
    chex.assert_shape(circuit.masks["embedding"], ())
    assert float(tiny.log_alpha(circuit)["embedding"]) != CONFIG.initial_log_alpha
    mg.evaluate(model, circuit, tiny.data(model.config).test)


def test_a_loss_that_is_no_number_stops_at_once() -> None:
    model = tiny.model("gpt2")
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
    with pytest.raises(mg.MgnpError, match="loss is nan at step 1"):
        find(dataclasses.replace(model, params=params))


def test_batches_see_every_prompt_once_an_epoch_and_have_like_sizes() -> None:
    tokens = np.array([3, 9, 3, 9, 3, 9, 5, 5, 5, 5])
    order = batch_order(jax.random.key(0), tokens, batch_size=5, steps=6)
    chex.assert_shape(order, (6, 5))
    seen = order.reshape(3, 10)
    assert [sorted(epoch) for epoch in seen.tolist()] == [list(range(10))] * 3
    assert seen[0].tolist() != seen[1].tolist()
    # 56 tokens an epoch in two batches: dealt out, none has more than 31.
    assert tokens[order].sum(1).max() <= 31
    again = batch_order(jax.random.key(0), tokens, batch_size=5, steps=6)
    np.testing.assert_array_equal(order, again)


def test_schedules() -> None:
    config = mg.DiscoverConfig(steps=100, warmup=0.2, noise_floor=0.4)
    scale = [float(schedule.penalty_scale(config, jnp.int32(s))) for s in (0, 10, 20, 99)]
    np.testing.assert_allclose(scale, [0, 0.5, 1, 1])
    noise = [float(schedule.noise_scale(config, jnp.int32(s))) for s in (0, 25, 50, 99)]
    np.testing.assert_allclose(noise, [1, 0.75, 0.5, 0.4])
    soft = dataclasses.replace(config, gates="soft")
    assert float(schedule.noise_scale(soft, jnp.int32(99))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"warmup": 1.5},
        {"temperature": 0.5},
        {"softened_weight": -0.1},
        {"penalty": -0.1},
        {"granularities": ("heads",)},
        {"keep": 1.5},
        {"max_kl": 0.0},
        {"max_kl": float("inf")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    got = value[0] if isinstance(value, tuple) else value
    with pytest.raises(mg.MgnpError, match=f"{name} .*must .* got .?{got}"):
        mg.DiscoverConfig(**change)


def test_impossible_ways_of_execution_are_refused() -> None:
    with pytest.raises(mg.MgnpError, match="cache must be one of .* got 'some'"):
        mg.Execution(cache="some")  # type: ignore[arg-type]
    with pytest.raises(mg.MgnpError, match="devices times accumulate must divide .* got 3 × 1"):
        mg.DiscoverConfig(execution=mg.Execution(devices=3))


def test_validation_on_fewer_prompts_is_on_the_first() -> None:
    tiny_model = tiny.model("gpt2")
    data = tiny.data(tiny_model.config)
    execution = mg.Execution(dtype="float32")
    config = dataclasses.replace(CONFIG, validation_prompts=3, execution=execution)
    circuit = mg.discover(jax.random.key(0), tiny_model, data, config)
    expected = mg.evaluate(tiny_model, circuit, data.validation.take(slice(3)))
    assert circuit.metadata["validation"]["prompts"] == 3
    assert circuit.metadata["validation"]["base_score"] == pytest.approx(
        expected["base_score"], abs=1e-5
    )


def test_gates_of_other_granularities_stay_open() -> None:
    tiny_model = tiny.model("gpt2")
    config = dataclasses.replace(
        CONFIG,
        granularities=("attention_heads", "mlp_hidden"),
        nested=False,
        penalty=20.0,
        warmup=0.0,
    )
    records: list[dict[str, Any]] = []
    data = tiny.data(tiny_model.config)
    circuit = mg.discover(jax.random.key(0), tiny_model, data, config, on_record=records.append)
    for name, leaf in tiny.log_alpha(circuit).items():
        assert bool((leaf != state.SURELY_OPEN).any()) == (name in config.granularities)
    sizes = (tiny.log_alpha(circuit)[name].size for name in config.granularities)
    assert circuit.metadata["training"]["gates"] == sum(sizes)
    last = next(record for record in records[::-1] if "kept" in record)
    assert last["kept"]["attention_heads"] < 0.9 and last["kept"]["attention_neurons"] == 1.0
    # A closed head's neurons are closed with it, the open heads' all open.
    heads, neurons = circuit.masks["attention_heads"], circuit.masks["attention_neurons"]
    np.testing.assert_array_equal(neurons, np.broadcast_to(heads[..., None], neurons.shape))


@pytest.mark.parametrize("where", ["train_step", "measured"])
def test_what_finds_no_memory_is_done_again_with_values_in_files(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    model = tiny.model("gpt2")
    expected = find(model, CONFIG)
    real, calls, old = getattr(loop, where), 0, []
    short_at = {"train_step": 6, "measured": 2}[where]

    def short(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == short_at:
            old.extend(weakref.ref(leaf) for leaf in kept if leaf.size)
            kept.clear()
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")
        # What was kept in memory is gone.
        assert not any(leaf() is not None for leaf in old)
        return real(*args)

    prepare, kept = loop.prepare, []

    def watched(*args: Any) -> Any:
        work = prepare(*args)
        kept.extend(jax.tree.leaves(work.train.kept and work.train.kept.corrupted))
        return work

    monkeypatch.setattr(loop, "prepare", watched)
    monkeypatch.setattr(loop, where, short)
    records: list[dict[str, Any]] = []
    key, data = jax.random.key(0), tiny.data(model.config)
    got = mg.discover(key, model, data, CONFIG, on_record=records.append)
    assert sum("in files" in r.get("text", "") for r in records) == 1
    assert [r["step"] for r in records if "loss" in r] == [1, 4, 7, 10, 12]
    assert [r["step"] for r in records if "validation" in r] == [4, 8, 12]
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)

    calls = short_at - 1
    lean = dataclasses.replace(CONFIG, execution=mg.Execution(cache_on="disk"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        mg.discover(key, model, data, lean)


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("room", [True, False], ids=["room", "none"])
def test_values_go_to_files_when_the_machine_runs_short(
    monkeypatch: pytest.MonkeyPatch, room: bool, place: Any
) -> None:
    model = tiny.model("llama")
    expected = find(model, CONFIG)
    monkeypatch.setattr(memory, "is_short", lambda: True)
    # Where the device has memory of its own, what lies there does not help the machine.
    monkeypatch.setattr(memory, "free_on_device", lambda: None)
    if not room:

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
    tried, in_files = [], Work.in_files
    monkeypatch.setattr(Work, "in_files", lambda work: tried.append(1) or in_files(work))
    records: list[dict[str, Any]] = []
    config = dataclasses.replace(CONFIG, execution=mg.Execution(cache_on=place))
    got = mg.discover(
        *(jax.random.key(0), model, tiny.data(model.config), config), on_record=records.append
    )
    assert sum("runs short" in record.get("text", "") for record in records) == room
    # What was refused once is not copied again at each logged step.
    assert len(tried) == 1
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
