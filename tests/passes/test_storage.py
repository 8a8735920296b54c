"""Where kept values lie changes memory and nothing else."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import types
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.models.weights import init_params
from mgnp_jax.passes import cached_runs, memory, storage
from mgnp_jax.passes.budget import budget_of, plain_bytes, step_bytes
from mgnp_jax.passes.caching import cache_runs, prompts_at_once
from mgnp_jax.passes.compaction import Compaction, compacted, plan_for, what_stays
from mgnp_jax.passes.keeping import keep_what_fits
from mgnp_jax.passes.packing import pack
from mgnp_jax.passes.spans import Sizes, Spans, spans_of
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.passes.storage import Room
from tests import tiny

GIB = 2**30
# Enough steps at a high price that nodes are left out twice.
CONFIG = mg.DiscoverConfig(
    steps=40,
    batch_size=4,
    learning_rate=0.5,
    nested=False,
    penalty=60.0,
    warmup=0.0,
    noise_floor=0.0,
    validate_every=5,
    execution=mg.Execution(compile_cost=0.0),
)


@pytest.fixture
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's memory is the machine's, whatever tests run on."""
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_device", lambda: None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path))
    # Whatever tests before these have left, and whoever else is on the machine.
    monkeypatch.setattr("mgnp_jax.passes.budget.resident", lambda: GIB)
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_host", lambda: 20 * GIB)
    return tmp_path


def found(model: mg.Model, records: list[dict[str, Any]], **execution: Any) -> mg.Circuit:
    config = dataclasses.replace(
        CONFIG, execution=dataclasses.replace(CONFIG.execution, **execution)
    )
    data = tiny.data(model.config)
    return mg.discover(jax.random.key(0), model, data, config, on_record=records.append)


def all_of(model: mg.Model) -> Compaction:
    """A compaction that leaves everything."""
    left = what_stays({n: np.ones(m.shape, bool) for n, m in mg.full_masks(model.config).items()})
    return compacted(model.config, model.params, plan_for(model.config, left, 4), left)


@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.full)])
@pytest.mark.slow
def test_memory_never_changes_a_circuit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(name)
    # What an accelerator has free, None where the host is the device, and what is said.
    ways: list[tuple[int | None, dict[str, Any], str]] = [
        (None, {}, "in memory"),
        (None, {"cache_on": "device"}, "on the device"),
        (None, {"cache_on": "disk"}, "in files"),
        (None, {"memory_gib": 1e-3}, "more than allowed.*in files"),
        (30 * GIB, {}, "on the device"),
        (30 * GIB, {"memory_gib": 1e-6}, "more than allowed.*in memory"),
    ]
    circuits: list[mg.Circuit] = []
    for free, way, said in ways:
        monkeypatch.setattr("mgnp_jax.passes.budget.free_on_device", lambda free=free: free)
        records: list[dict[str, Any]] = []
        circuits.append(found(model, records, **way))
        assert records[0]["passing"] and re.search(said, records[0]["text"])
        assert sum("cost" in record for record in records) >= 2, "nothing left the computation"
    for other in circuits[1:]:
        chex.assert_trees_all_equal(other.log_alpha, circuits[0].log_alpha)
        chex.assert_trees_all_equal(other.masks, circuits[0].masks)


def test_files_go_with_the_process(cache: Path) -> None:
    array = storage.empty((3, 5), np.float32, "disk")
    array[:] = np.arange(15).reshape(3, 5)
    storage.give_up_pages(array)
    assert list(cache.iterdir()) == []
    np.testing.assert_array_equal(storage.some(array, np.array([4, 0]), 1)[2], [14, 10])
    np.testing.assert_array_equal(storage.copied(array, slice(1, 3), 0)[0], np.arange(5, 10))
    assert storage.lies_in_file(array)
    assert not storage.lies_in_file(storage.empty((3,), np.float32, "host"))


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_said_before_any_prompt_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    records: list[dict[str, Any]] = []
    with pytest.raises(mg.MgnpError, match="No space left on device.*MGNP_JAX_CACHE"):
        found(tiny.model("gpt2"), records, cache_on="disk")
    assert len(records) == 1 and "in files" in records[0]["text"]


def test_a_disk_that_fills_up_does_not_end_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("gpt2")
    expected = found(model, [])
    records: list[dict[str, Any]] = []

    def fill(record: dict[str, Any]) -> None:
        records.append(record)
        # All plain passes are kept by then.
        if "loss" in record:
            monkeypatch.setattr(os, "posix_fallocate", full)

    execution = dataclasses.replace(CONFIG.execution, cache_on="disk")
    config = dataclasses.replace(CONFIG, execution=execution)
    got = mg.discover(*(jax.random.key(0), model, tiny.data(model.config), config), on_record=fill)
    assert sum("cost" in record for record in records) >= 2
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)


def test_nothing_is_gathered_in_host_memory_on_its_way_to_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.model("llama")
    c, batch = model.config, tiny.batch(model.config, rows=10, shared=3)
    spans = spans_of(batch)
    # Chunks of 4, the last one filled up.
    at_host = cache_runs(c, model.params, batch, 4, spans, place="host")
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(at_host.corrupted))
    made: list[int] = []
    real = np.empty

    def watched(*args: Any, **kwargs: Any) -> np.ndarray:
        array = real(*args, **kwargs)
        made.append(array.nbytes)
        return array

    monkeypatch.setattr(np, "empty", watched)
    on_device = cache_runs(c, model.params, batch, 4, spans, place="device")
    assert on_device.on_device and max(made, default=0) < largest / 2
    chex.assert_trees_all_equal(on_device.corrupted, at_host.corrupted)
    np.testing.assert_array_equal(on_device.base_logits, at_host.base_logits)


def test_fastest_place_with_room() -> None:
    room = Room(device=10, host=20, disk=30)
    assert [room.place_for(n) for n in (10, 11, 21)] == ["device", "host", "disk"]
    assert room.without("host", 15).place_for(11) == "disk"
    assert Room.all_in("host").place_for(GIB) == "host"
    assert room.place_for(31) is None


@pytest.mark.usefixtures("_no_accelerator")
def test_no_room_anywhere_is_said_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_disk", lambda: 100)
    with pytest.raises(mg.MgnpError, match="cache batch"):
        found(tiny.model("gpt2"), [], memory_gib=1e-3)


def test_where_a_smaller_copy_has_no_room_each_batch_is_cut_down(
    tiny_model: mg.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, records = found(tiny_model, []), []
    whole = SplitRuns._narrow_copy
    monkeypatch.setattr(SplitRuns, "_narrow_copy", lambda *_: None)
    got = found(tiny_model, records)
    assert sum("cost" in record for record in records) >= 2
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    # As it is where the room that is counted is too small.
    c, p = tiny_model.config, tiny_model.params
    (split,) = keep_what_fits(c, p, [tiny.data(c).train], 4, mg.Execution())
    monkeypatch.setattr(SplitRuns, "_narrow_copy", whole)
    smaller = all_of(tiny_model)
    assert split.compacted(smaller).narrow is not None
    cramped = dataclasses.replace(split, room=Room(0, 0, 100))
    assert cramped.compacted(smaller).narrow is None


@pytest.mark.usefixtures("_no_accelerator")
def test_splits_are_put_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    data = tiny.data(model.config)
    said: list[Any] = []
    first, second = keep_what_fits(
        *(model.config, model.params, [data.train, data.validation], 4, mg.Execution()),
        on_record=said.append,
    )
    assert first.kept is not None and first.kept_in(np.ndarray) and not first.kept_in(jax.Array)
    assert second.kept_in(np.ndarray)
    smaller = first.compacted(all_of(model))
    moved = smaller.in_files()
    assert moved.kept is not None and moved.narrow is not None and smaller.narrow is not None
    assert not moved.kept_in(object)
    assert moved.narrow.base_logits is moved.kept.base_logits
    for before, after in ((smaller.kept, moved.kept), (smaller.narrow, moved.narrow)):
        assert before is not None
        chex.assert_trees_all_equal(after.corrupted, before.corrupted)
        np.testing.assert_array_equal(after.base_logits, before.base_logits)
    again = moved.in_files()
    assert again.kept is not None and again.kept.base_logits is moved.kept.base_logits
    assert said[-1] == {"passing": True, "prepared": 20, "of": 20}


def test_prompts_that_no_step_reads_are_not_run() -> None:
    model = tiny.model("gpt2")
    many = tiny.batch(model.config, rows=1000)
    data = dataclasses.replace(tiny.data(model.config), train=many)
    config = dataclasses.replace(CONFIG, steps=2, batch_size=4)
    records: list[dict[str, Any]] = []
    mg.discover(jax.random.key(0), model, data, config, on_record=records.append)
    assert [r["of"] for r in records if "of" in r][-1] == 2 * 4 + len(data.validation)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_budget_adds_up(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(family)
    sizes = Sizes(whole=64, tokens=48, positions=12, prefix=3)
    monkeypatch.setattr("mgnp_jax.passes.budget.resident", lambda: GIB)
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_host", lambda: 5 * GIB)

    def budget(**kwargs: Any) -> Any:
        return budget_of(mg.Execution(**kwargs), model.config, model.params, sizes, 4, 15)

    # Half of what there is, this process's own included.
    assert budget().total == 3 * GIB
    assert budget(memory_gib=50.0).total == 6 * GIB
    asked = budget(memory_gib=2.5)
    assert asked.total == 2.5 * GIB
    assert asked.room.host == asked.total - asked.taken - asked.temporaries
    assert asked.room.device == 0
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_host", lambda: 50 * GIB)
    assert budget().total == 4 * GIB
    monkeypatch.setattr("mgnp_jax.passes.budget.free_on_device", lambda: 30 * GIB)
    assert 15 * GIB <= budget().total < 15.1 * GIB
    assert budget().room.device < 15 * GIB and budget().room.host > 20 * GIB


def test_step_bytes_are_those_of_compiled_steps() -> None:
    # XLA's temporaries of SmolLM2's step on IOI prompts, with its optimisations, in bytes.
    smollm2 = dataclasses.replace(
        tiny.LLAMA,
        vocab_size=49_152,
        layers=30,
        width=576,
        heads=9,
        kv_heads=3,
        head_width=64,
        mlp_width=1536,
    )
    batch = 4 * 240 * (30 * (576 + 1536 + 2 * 576) + 576)
    short = step_bytes(smollm2, Sizes(whole=304, tokens=240, positions=18, prefix=8), 16)
    assert short - 2 * batch == pytest.approx(700_114_248, rel=0.1)
    # Attention is quadratic in the length.
    long = [
        step_bytes(smollm2, Sizes(whole=n, tokens=n, positions=n, prefix=0), 1) / n
        for n in (256, 4096)
    ]
    assert long[1] > 2 * long[0]


@pytest.mark.parametrize("length", [40, 300])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_plain_bytes_are_those_of_compiled_passes(family: str, length: int) -> None:
    widths = {"width": 96, "heads": 6, "head_width": 16, "mlp_width": 384}
    kv = {"kv_heads": 6 if family == "gpt2" else 3, "context": 512}
    c = dataclasses.replace(tiny.CONFIGS[family], **widths, **kv)
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), c))
    rows, apart = 4, 10
    ids = [jax.ShapeDtypeStruct((n,), np.int32) for n in (2 * rows * length, rows * apart)]
    tokens = jax.ShapeDtypeStruct((2, rows * length), np.int32)
    before = jax.ShapeDtypeStruct((rows, length - apart), np.int32)
    whole = pack(np.full(rows, length), np.zeros(rows, int))
    run: Any = cached_runs._run
    asked = (c, False, params, tokens, whole, ids[1], before, None)
    used = run.lower(*asked).compile().memory_analysis()
    total = used.temp_size_in_bytes + used.output_size_in_bytes
    sizes = Sizes(rows * length, rows * apart, apart, length - apart)
    assert total < plain_bytes(c, sizes, rows, length) < 2.5 * total


@pytest.mark.usefixtures("_no_accelerator")
def test_whole_prompts_are_planned_for_where_only_their_ends_differ() -> None:
    model, asked = tiny.model("gpt2"), mg.Execution(memory_gib=3.0)
    sizes = Sizes(whole=16 * 1010, tokens=160, positions=10, prefix=1000)
    long = budget_of(asked, model.config, model.params, sizes, 16, 1010)
    # Scores and weights of both streams alone.
    assert long.temporaries > 4 * 4 * 16 * model.config.heads * 1010**2
    assert long.room.host == long.total - long.taken - long.temporaries
    # Measured prompt by prompt, too.
    ends = Spans(lengths=np.full(64, 1010), starts=np.full(64, 1000))
    wide = dataclasses.replace(model.config, heads=12, kv_heads=12)
    assert prompts_at_once(wide, ends) == 1
    assert prompts_at_once(wide, Spans(np.full(64, 20), np.full(64, 10))) == 64


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_it_may_take(tmp_path: Path, version: int) -> None:
    names = ("memory.max", "memory.current", "memory.stat", "inactive_file")
    if version == 1:
        (tmp_path / "memory").mkdir()
        names = (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        )
    free = memory.free_on_host(tmp_path)
    (tmp_path / names[0]).write_text(f"{50 * 2**20}\n")
    (tmp_path / names[1]).write_text(f"{40 * 2**20}\n")
    (tmp_path / names[2]).write_text(f"anon 7\n{names[3]} {5 * 2**20}\n")
    assert memory.free_on_host(tmp_path) == 15 * 2**20 < free
    assert not memory.is_short(tmp_path)
    (tmp_path / names[1]).write_text(f"{53 * 2**20}\n")
    assert memory.is_short(tmp_path)
    (tmp_path / names[0]).write_text("max\n")
    assert memory.free_on_host(tmp_path) > GIB / 10


def test_the_peak_is_that_of_the_accelerator_where_there_is_one() -> None:
    def device(platform: str, stats: Any) -> Any:
        return types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)

    used = [device("gpu", {"peak_bytes_in_use": count * 2**20}) for count in (3, 7)]
    assert memory.peak_mb([device("cpu", None), *used]) == 7.0
    of_process = memory.peak_mb([device("cpu", {"peak_bytes_in_use": 2**20}), device("tpu", None)])
    assert of_process == memory.peak_mb() > 50


def test_giving_back_keeps_what_is_used() -> None:
    # Too small to be mapped on their own: they stay with the process when they are freed.
    arrays = [np.full(10**4, i, np.float64) for i in range(2000)]
    before, kept = memory.resident(), arrays[::100]
    size = sum(array.nbytes for array in arrays)
    del arrays
    memory.give_back()
    assert before - memory.resident() > size / 2
    assert [array[-1] for array in kept] == list(range(0, 2000, 100))


def test_programs_say_what_takes_less_memory() -> None:
    for error in (
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes\nat x"),
        MemoryError(),
    ):
        with pytest.raises(mg.MgnpError, match="memory has run out .*--memory-gib") as said:
            with memory.said_if_short():
                raise error
        assert "\n" not in str(said.value)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with memory.said_if_short():
            raise jax.errors.JaxRuntimeError("INTERNAL: RESOURCE")
