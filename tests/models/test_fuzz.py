"""Made-up configs and damaged weight files: each loads or is refused, soon and without a sound."""

from __future__ import annotations

import json
import struct
import tempfile
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

import mgnp_jax as mg
from mgnp_jax.models.files import INDEX, ONE_FILE
from tests import tiny

COUNTS = [60, pytest.param(2000, marks=pytest.mark.full)]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.sampled_from([10**9, 2**24, 2**31, 2**63, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["gpt2", "llama", "qwen2", "mistral", "default", "gelu_new", "\ud800"]),
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
BASES = [config.family.write_config(config) for config in tiny.FAMILIES.values()]
KEYS = sorted({key for base in BASES for key in base} | {
    "rope_parameters", "rope_scaling", "quantization_config", "layer_types", "per_layer_config",
    "is_causal", "sliding_window", "use_sliding_window", "text_config", "attention_bias",
})  # fmt: skip
configs = st.builds(
    lambda base, gone, new: {k: v for k, v in base.items() if k not in gone} | new,
    st.sampled_from(BASES),
    st.sets(st.sampled_from(KEYS), max_size=1),
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), junk, max_size=2),
)
config_files = st.one_of(
    configs.map(lambda raw: json.dumps(raw).encode("utf-8", "surrogatepass")),
    junk.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.builds(lambda depth: b'{"a":' * depth, st.sampled_from([10, 900, 1100, 10**5])),
)


@st.composite
def weights(draw: st.DrawFn, whole: bytes) -> bytes:
    """A weight file, cut, overwritten, lengthened, or with another header."""
    how = draw(st.sampled_from(["cut", "bytes", "header bytes", "header", "length", "random"]))
    if how == "random":
        return draw(st.binary(max_size=200))
    (length,) = struct.unpack("<Q", whole[:8])
    if how == "cut":
        return whole[: draw(st.integers(0, len(whole)))] + draw(st.binary(max_size=3))
    if how == "length":
        return struct.pack("<Q", draw(st.integers(0, 2**64 - 1))) + whole[8:]
    if how == "header":
        head = json.loads(whole[8 : 8 + length])
        name = draw(st.sampled_from(sorted(head)))
        field = draw(st.sampled_from(["shape", "dtype", "data_offsets", "new"]))
        dtypes = st.sampled_from(["F16", "F64", "BOOL", "F8_E4M3", "F4", "I64"])
        sizes = st.lists(st.integers(0, 40) | st.integers(-2, 2**65), max_size=3)
        value = draw({"dtype": dtypes, "new": junk}.get(field, sizes))
        if not isinstance(head[name], dict) or field == "new":
            head[draw(st.sampled_from([name, "new"]))] = value
        else:
            head[name][field] = value
        text = json.dumps(head).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]
    changed = bytearray(whole)
    end = 8 + length if how == "header bytes" else len(whole)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def check(
    count: int,
    whole: dict[str, dict[str, bytes]],
    changes: st.SearchStrategy[tuple[str, dict[str, bytes]]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Loads folders of a family's files with some of them changed."""
    outcomes = {"loaded": 0, "refused": 0}

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
        ],
    )
    @hypothesis.given(changes)
    def load(change: tuple[str, dict[str, bytes]]) -> None:
        content = whole[change[0]] | change[1]
        with tempfile.TemporaryDirectory() as name:
            for file, data in content.items():
                (Path(name) / file).write_bytes(data)
            # Of this process, which may have to share its machine.
            start = time.process_time()
            try:
                model = mg.load_model(name)
                outcomes["loaded"] += 1
                assert all(note.encode() for note in model.notes)
            except mg.MgnpError as error:
                outcomes["refused"] += 1
                assert "\n" not in str(error) and len(str(error)) < 1500
                str(error).encode()
            assert time.process_time() - start < 10
            assert {p.name for p in Path(name).iterdir()} == set(content)

    capfd.readouterr()
    load()
    assert capfd.readouterr() == ("", "")
    assert min(outcomes.values()) > 0, outcomes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of tiny models by family, read once transformers is imported."""
    folder = tmp_path_factory.mktemp("saved")
    for name, config in tiny.CONFIGS.items():
        mg.save_model(tiny.model(name), folder / name)
        mg.load_model(folder / name)
        # The first unknown key imports transformers, which takes its time and may speak.
        config.family.read_config(config.family.write_config(config) | {"a key of nobody": 1})
    return {
        name: {p.name: p.read_bytes() for p in (folder / name).iterdir()} for name in tiny.CONFIGS
    }


@pytest.mark.parametrize("count", COUNTS)
def test_any_config_loads_or_is_refused(
    count: int, saved: dict[str, dict[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    changed = config_files.map(lambda data: {"config.json": data})
    check(count, saved, st.tuples(st.sampled_from(sorted(saved)), changed), capfd)


@pytest.mark.parametrize("count", COUNTS)
def test_any_damage_to_weights_is_survived(
    count: int, saved: dict[str, dict[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    changed = weights(saved["gpt2"][ONE_FILE]).map(lambda data: {ONE_FILE: data})
    check(count, saved, st.tuples(st.just("gpt2"), changed), capfd)


@pytest.mark.parametrize("count", COUNTS)
def test_any_index_is_survived(
    count: int, saved: dict[str, dict[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    files = saved["gpt2"]
    sharded = {"config.json": files["config.json"], "a.safetensors": files[ONE_FILE]}
    paths = st.sampled_from(["a.safetensors", "../x", "/etc/passwd", ".", "config.json"]) | junk
    maps = st.dictionaries(st.text(max_size=5), paths, max_size=3) | junk
    indices = st.one_of(
        st.just({"weight_map": {"x": "a.safetensors"}}), maps.map(lambda m: {"weight_map": m}), junk
    )
    changed = indices.map(lambda index: {INDEX: json.dumps(index).encode()})
    check(count, {"gpt2": sharded}, st.tuples(st.just("gpt2"), changed), capfd)
