"""Folders and weight files from strangers: what is read, and what is refused before it is."""

from __future__ import annotations

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import mgnp_jax as mg
from mgnp_jax.models.files import ADAPTER, INDEX, ONE_FILE
from mgnp_jax.models.weights import tensors_from_params
from tests import tiny

Tensors = dict[str, np.ndarray]
WEIGHT = "transformer.h.1.mlp.c_fc.weight"


def checkpoint(folder: Path, change: Callable[[Tensors], Any] = dict) -> Path:
    """A tiny GPT-2 whose tensors have been changed."""
    model = tiny.model("gpt2")
    folder.mkdir(exist_ok=True)
    raw = model.family.write_config(model.config)
    (folder / "config.json").write_text(json.dumps(raw))
    tensors = tensors_from_params(model.config, model.params)
    safetensors.numpy.save_file(change(tensors), folder / ONE_FILE)
    return folder


def index(folder: Path, name: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {WEIGHT: name}}))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message) as error:
        mg.load_model(folder)
    said = str(error.value)
    said.encode()
    assert "\n" not in said and len(said) < 1000


def test_a_file_instead_of_its_folder_is_said(tmp_path: Path) -> None:
    refused(checkpoint(tmp_path) / ONE_FILE, "is a file, wanted the folder it is in")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800", "/no/such/folder", "../../.."])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(mg.MgnpError, match=r"cannot be read|unknown model|no config\.json"):
        mg.load_model(name)


def test_a_folder_that_may_not_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever runs the tests may be root, whom no permission stops.
    def denied(self: Path, *args: object, **kwargs: object) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    checkpoint(tmp_path)
    monkeypatch.setattr(Path, "open", denied)
    refused(tmp_path, "cannot be read: .*Permission denied")


@pytest.mark.parametrize("name", ["config.json", ONE_FILE, INDEX])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path)
    (tmp_path / ONE_FILE).unlink()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    refused(tmp_path, "no config.json" if name == "config.json" else "has neither")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_other_formats_alone_are_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    (checkpoint(tmp_path) / ONE_FILE).rename(tmp_path / name)
    refused(tmp_path, rf"found: 'config.json', '{name}'.*never from pickle.*save_pretrained")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.safetensors", "names '../outside.safetensors', which is outside"),
        ("{folder}/inside.safetensors", "which is outside"),
        ("link.safetensors", "names 'link.safetensors', which is outside"),
        ("", "which is outside"),
        ("a\0b", "is not there"),
        ("\ud800", "is not there"),
        ("x" * 3000, "cannot be read|is not there"),
        ("config.json", "cannot be read as safetensors"),
        (3, "is no index of shards"),
        ({}, "is no index of shards"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, name: Any, message: str) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / ONE_FILE).rename(tmp_path / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    index(folder, name.format(folder=folder) if isinstance(name, str) else name)
    refused(folder, message)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (checkpoint(tmp_path) / ONE_FILE).unlink()
    (tmp_path / INDEX).write_text(text)
    refused(tmp_path, "index.json (is not JSON|holds list|is no index)")


def test_links_as_in_the_hub_s_cache_are_followed(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    folder = checkpoint(cache / "snapshots" / "1")
    (folder / ONE_FILE).rename(cache / "blobs" / "x")
    (folder / "s.safetensors").symlink_to("../../blobs/x")
    index(folder, "s.safetensors")
    assert mg.load_model(folder).config == tiny.GPT2


def test_what_lies_in_two_shards_is_refused(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / ONE_FILE).rename(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    (tmp_path / INDEX).write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    refused(tmp_path, "is both in a.safetensors and in b.safetensors")


def test_what_transformers_would_add_to_the_weights_is_refused(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / ADAPTER).write_text("{}")
    refused(tmp_path, "has adapter_config.json.*merge_and_unload")
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "no config.json but adapter_config.json: merge")
    checkpoint(tmp_path)
    (tmp_path / ADAPTER).unlink()
    (tmp_path / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"")
    refused(tmp_path, "distributed checkpoint")


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def other(dtype: Any) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, WEIGHT: tensors[WEIGHT].astype(dtype)}


def with_value(value: float, dtype: Any = np.float32) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensors[WEIGHT] = tensors[WEIGHT].astype(dtype)
        tensors[WEIGHT][1, 2:4] = value
        return tensors

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (prefixed("_orig_mod."), "are those of this model with '_orig_mod.' before every name"),
        (prefixed("module._orig_mod."), "with 'module._orig_mod.' before every name"),
        (
            lambda ts: {f"module.{k.removeprefix('transformer.')}": t for k, t in ts.items()},
            "with 'module.' before every name",
        ),
        (
            lambda ts: {"blocks.0.attn.W_Q": ts[WEIGHT], "embed.W_E": ts[WEIGHT].copy()},
            "2 tensors .*'blocks.0.attn.W_Q'.* none of the names .*'transformer.wte.weight'",
        ),
        (lambda ts: {}, "0 tensors"),
        (lambda ts: {"\u2028\n": ts[WEIGHT]}, "none of the names"),
        (
            lambda ts: {f"_orig_mod.{k}" if "wte" in k else k: t for k, t in ts.items()},
            "lacks the tensor transformer.wte.weight",
        ),
        (
            lambda ts: {**ts, "transformer.wte.weight": ts["transformer.wte.weight"][:30]},
            r"has shape \(30, 12\), but config.json implies \(37, 12\) \(vocab_size 37\)",
        ),
        (lambda ts: {**ts, "transformer.h.0.q.bias": ts[WEIGHT]}, "does not use: 'transformer.h"),
        (lambda ts: {**ts, "h.0.lora_A": ts[WEIGHT]}, "does not use: 'h.0.lora_A'"),
        (other(np.int8), f"'{WEIGHT}' is of dtype I8, wanted one of float32"),
        (other(bool), "of dtype BOOL.*dequantise"),
        (other(ml_dtypes.float8_e4m3fn), "of dtype F8_E4M3"),
        (with_value(np.nan), rf"'{WEIGHT}' has 2 of 240 values that are NaN or infinite"),
        (with_value(-np.inf, np.float16), "has 2 of 240 values"),
        (with_value(np.nan, ml_dtypes.bfloat16), "has 2 of 240 values"),
        (with_value(1e300, np.float64), "has 2 of 240 values .* in float32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    refused(checkpoint(tmp_path, change), message)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_floats_of_every_width_become_float32(tmp_path: Path, dtype: Any) -> None:
    params = mg.load_model(checkpoint(tmp_path, other(dtype))).params
    up = np.asarray(params["blocks"]["mlp"]["up"]["kernel"])
    wanted = np.asarray(tiny.model("gpt2").params["blocks"]["mlp"]["up"]["kernel"])
    assert up.dtype == np.float32
    np.testing.assert_array_equal(up[1], wanted[1].astype(dtype).astype(np.float32))


def header(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites the header of a safetensors file, and leaves the rest."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    edited = edit(head)
    text = json.dumps(head if edited is None else edited).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    "edit",
    [
        lambda h: h[WEIGHT].update(shape=[10**6, 10**6]),
        lambda h: h[WEIGHT].update(shape=[0, 10**12]),
        lambda h: h[WEIGHT].update(shape=[2**63, 2]),
        lambda h: h[WEIGHT].update(shape=[-12, -20]),
        lambda h: h[WEIGHT].update(shape=[20, 12]),
        lambda h: h[WEIGHT].update(dtype="F4"),
        lambda h: h[WEIGHT].update(dtype="F128"),
        lambda h: h[WEIGHT].update(data_offsets=[0, 10**15]),
        lambda h: h[WEIGHT].update(data_offsets=[960, 0]),
        lambda h: h.update(__metadata__={"format": 3}),
        lambda h: h.pop(WEIGHT) and None,
        lambda h: [h],
        lambda h: {f"t{i}": h[WEIGHT] for i in range(3)},
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, edit: Callable[[Any], object]) -> None:
    header(checkpoint(tmp_path) / ONE_FILE, edit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, "cannot be read as safetensors|belong to different models|lacks|of dtype F4")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("length", [0, 7, 2, 10**8, 2**63, 2**64 - 1])
def test_a_lying_length_is_refused(tmp_path: Path, length: int) -> None:
    data = (checkpoint(tmp_path) / ONE_FILE).read_bytes()
    (tmp_path / ONE_FILE).write_bytes(struct.pack("<Q", length) + data[8:])
    refused(tmp_path, "cannot be read as safetensors")


def test_an_enormous_file_is_not_read_before_its_shapes(tmp_path: Path) -> None:
    # A file without its blocks on disk: two terabytes that the file system allows.
    checkpoint(tmp_path)
    text = json.dumps(
        {"transformer.wte.weight": {"dtype": "F32", "shape": [5 * 10**8, 1000],
                                    "data_offsets": [0, 2 * 10**12]}}
    ).encode()  # fmt: skip
    with (tmp_path / ONE_FILE).open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + 2 * 10**12)
    refused(tmp_path, r"has shape \(500000000, 1000\)")


def test_code_beside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    raw["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert mg.load_model(folder).config == tiny.GPT2
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_a_built_in_model_s_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "gpt2-mini")
    model = mg.load_model("gpt2-mini")
    assert model.config != tiny.GPT2 and "./gpt2-mini" in model.notes[0]
    assert mg.load_model("./gpt2-mini").config == tiny.GPT2
