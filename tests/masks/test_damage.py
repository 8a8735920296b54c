"""Circuits that were damaged, or made to do harm: refused in a sentence, or right."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
import tensorstore as ts

import mgnp_jax as mg
from mgnp_jax.checkpoint import save_trees
from mgnp_jax.files import LARGEST_FILE
from mgnp_jax.masks.circuit import TREES
from tests import tiny
from tests.masks.test_circuit import a_circuit

Files = dict[Path, bytes]
METADATA = Path("_CHECKPOINT_METADATA")


def files_of(folder: Path) -> Files:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Files]:
    """A circuit on disk, and the files of another one of the same model."""
    folder = tmp_path_factory.mktemp("saved")
    a_circuit(0).save(folder / "a")
    a_circuit(50).save(folder / "b")
    return folder / "a", files_of(folder / "b")


def edited(rng: random.Random, text: str) -> str:
    """A value somewhere in the metadata is another one."""
    tree = json.loads(text)
    part: Any = tree["custom_metadata"] if rng.random() < 0.8 else tree
    key = rng.choice(sorted(part))
    while isinstance(part[key], dict) and part[key]:
        part = part[key]
        key = rng.choice(sorted(part))
    part[key] = rng.choice([None, 0.5, -1, [], {}, "other", float("nan"), True])
    return json.dumps(tree)


def damage(rng: random.Random, folder: Path, other: Files) -> None:
    """Does one thing to one file."""
    file = folder / rng.choice(sorted(files_of(folder)))
    raw = file.read_bytes()
    kind = rng.choice(["flip", "truncate", "swap", "exchange", "delete", "add", "edit"])
    if kind == "flip":
        changed = bytearray(raw or b"\0")
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
    elif kind == "truncate":
        file.write_bytes(raw[: rng.randrange(len(raw) + 1)])
    elif kind == "swap":
        (folder / rng.choice([file.relative_to(folder), METADATA])).write_bytes(
            other.get(file.relative_to(folder)) or rng.choice(list(other.values()))
        )
    elif kind == "exchange":
        tree = rng.choice(["masks", "log_alpha"])
        shutil.rmtree(folder / tree)
        for name in (name for name in other if name.parts[0] == tree):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(other[name])
    elif kind == "delete":
        file.unlink()
    elif kind == "add":
        (file.parent / rng.choice(["x", "_sharding", "zarr.json"])).write_bytes(b"{}")
    else:
        (folder / METADATA).write_text(edited(rng, (folder / METADATA).read_text()))


@pytest.mark.parametrize("count", [25, pytest.param(300, marks=pytest.mark.full)])
def test_a_damaged_circuit_is_refused_or_right(
    count: int, saved: tuple[Path, Files], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, other = saved
    circuit = a_circuit(0)
    refused = 0
    for seed in range(count):
        folder = tmp_path / str(seed)
        shutil.copytree(source, folder)
        damage(random.Random(seed), folder, other)
        start = time.monotonic()
        try:
            loaded = mg.load_circuit(folder)
        except mg.MgnpError:
            refused += 1
        else:
            chex.assert_trees_all_equal(loaded.masks, circuit.masks)
            chex.assert_trees_all_equal(loaded.log_alpha, circuit.log_alpha)
            assert loaded.scores is None and loaded.metadata == circuit.metadata, seed
        assert time.monotonic() - start < 10
    assert count / 5 < refused < count
    assert capfd.readouterr() == ("", "")


def rewritten(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes what an array says of itself anew, in the store that Orbax keeps it in."""
    base = {"driver": "file", "path": f"{folder}/masks/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    described = json.loads(store.read(f"{name}/zarr.json").result().value)
    change(described)
    store.write(f"{name}/zarr.json", json.dumps(described).encode()).result()


def huge(described: dict[str, Any]) -> None:
    described["shape"] = [10**6, 10**6]


def huge_and_whole(described: dict[str, Any]) -> None:
    text = json.dumps(described).replace("[3, 4]", "[1000000, 1000000]")
    described |= json.loads(text)


def huge_chunks(described: dict[str, Any]) -> None:
    described |= json.loads(json.dumps(described).replace("[3, 4]", "[1000000, 1000000]"))
    described["shape"] = [3, 4]


def words(described: dict[str, Any]) -> None:
    described["data_type"] = "string"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (huge, "come to 1,000,000,00.,... bytes, more than"),
        (huge_and_whole, "come to 1,000,000,00.,... bytes, more than"),
        (huge_chunks, "attention_heads has chunks of shape"),
        (words, "attention_heads is of type string"),
    ],
)
def test_what_an_array_says_of_itself_is_checked_before_it_is_read(
    saved: tuple[Path, Files],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    shutil.copytree(saved[0], tmp_path / "c")
    rewritten(tmp_path / "c", "attention_heads", change)
    tracemalloc.start()
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_circuit(tmp_path / "c")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert capfd.readouterr() == ("", "")


def test_nothing_outside_the_folder_is_read(
    saved: tuple[Path, Files], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(saved[0], folder)
    (folder / "masks").rename(tmp_path / "masks")
    (folder / "masks").symlink_to(tmp_path / "masks")
    with pytest.raises(mg.MgnpError, match="'masks' is a link that leads out of the folder"):
        mg.load_circuit(folder)
    # A link to the circuit itself, and links within it, are nobody's harm.
    (folder / "masks").unlink()
    (tmp_path / "masks").rename(folder / "kept")
    (folder / "masks").symlink_to("kept")
    (tmp_path / "link").symlink_to(folder)
    chex.assert_trees_all_equal(mg.load_circuit(tmp_path / "link").masks, a_circuit(0).masks)
    os.mkfifo(folder / "pipe")
    with pytest.raises(mg.MgnpError, match="'pipe' is neither a file nor a folder"):
        mg.load_circuit(folder)
    assert capfd.readouterr() == ("", "")


def test_a_store_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    a_circuit().save(folder)
    base = {"driver": "file", "path": f"{folder}/masks/"}
    spec = {"driver": "ocdbt", "base": base, "value_data_prefix": "../elsewhere/"}
    store = ts.KvStore.open(spec).result()
    # The file driver that the loader opens takes no such key, neither to write nor to read.
    with pytest.raises(ValueError, match="Invalid key"):
        store.write("attention_heads/c/0/0", b"x" * 5000).result()


def masks() -> dict[str, Any]:
    return {name: np.ones(m.shape, bool) for name, m in mg.full_masks(tiny.GPT2).items()}


def with_leaf(tree: dict[str, Any], name: str, leaf: Any) -> dict[str, Any]:
    return {**tree, name: leaf}


FLOATS = {name: np.ones(m.shape, np.float32) for name, m in masks().items()}
NAN = np.full((3, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        ({"log_alpha": FLOATS}, "holds no circuit"),
        ({"masks": FLOATS}, "masks attention_blocks is float32, wanted bool"),
        ({"masks": with_leaf(masks(), "more", np.ones(3, bool))}, "none but embedding beside them"),
        ({"masks": {"attention_heads": np.ones((3, 4), bool)}}, "wanted attention_blocks, mlp_"),
        (
            {"masks": with_leaf(masks(), "mlp_blocks", np.ones(4, bool))},
            r"mlp_blocks has the shape \(4,\), beside the other masks wanted \(3,\)",
        ),
        (
            {"masks": with_leaf(masks(), "attention_neurons", np.ones((3, 4), bool))},
            r"attention_neurons has the shape \(3, 4\)",
        ),
        (
            {"masks": masks(), "log_alpha": with_leaf(FLOATS, "attention_heads", NAN)},
            "log_alpha attention_heads has values that are not numbers",
        ),
        (
            {"masks": masks(), "scores": {"attention_heads": NAN}},
            "scores attention_heads has values that are not numbers",
        ),
        (
            {"masks": masks(), "scores": {"attention_heads": np.ones((2, 4), np.float32)}},
            r"scores attention_heads has the shape \(2, 4\)",
        ),
        ({"masks": masks(), "log_alpha": masks()}, "log_alpha attention_blocks is bool"),
        ({"masks": masks(), "ablation_values": {"embedding": NAN}}, "not numbers"),
        (
            {"masks": masks(), "ablation_values": {"x": np.ones(3, np.float32)}},
            "ablation_values are of x; wanted embedding",
        ),
        (
            {"masks": masks(), "ablation_values": {"embedding": np.ones(7, np.float32)}},
            r"ablation_values embedding has the shape \(7,\), beside the masks wanted \(12,\)",
        ),
        ({"masks": {"deeper": masks()}}, "wanted attention_blocks"),
    ],
)
def test_what_no_circuit_consists_of_is_refused(
    tmp_path: Path, trees: dict[str, Any], message: str
) -> None:
    # Saved past the checks, and with the right checksum.
    flat = (
        trees
        if "deeper" not in trees["masks" if "masks" in trees else "log_alpha"]
        else {"masks": {f"deeper.{name}": mask for name, mask in masks().items()}}
    )
    save_trees(tmp_path / "c", trees, {"circuit": {}, "sha256": mg.checksum(flat, {})})
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_circuit(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_alpha": with_leaf(FLOATS, "mlp_blocks", np.full(3, np.nan, np.float32))}, "numbers"),
        ({"masks": with_leaf(masks(), "mlp_blocks", np.full(3, 0.5))}, "other than 0 and 1"),
        ({"scores": {"deeper": FLOATS}}, "scores must be a dict of arrays"),
    ],
)
def test_such_a_circuit_is_not_saved(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    circuit = mg.Circuit(**{"masks": masks(), "metadata": {}, **change})  # type: ignore[arg-type]
    with pytest.raises(mg.MgnpError, match=message):
        circuit.save(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_metadata_is_read_as_json_has_it(tmp_path: Path) -> None:
    metadata = {"a": (1, float("nan")), 2: np.float32(0.5), "path": Path("x"), "name": "\udc80é"}
    mg.Circuit(masks=masks(), metadata=metadata).save(tmp_path / "c")
    loaded = mg.load_circuit(tmp_path / "c").metadata
    assert loaded == {"a": [1, None], "2": 0.5, "path": "x", "name": "\udc80é"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"custom_metadata": {"circuit": ' + "[" * 5_000])
def test_metadata_nested_deeply_is_refused(
    saved: tuple[Path, Files], tmp_path: Path, text: str
) -> None:
    shutil.copytree(saved[0], tmp_path / "c")
    (tmp_path / "c" / METADATA).write_text(text)
    with pytest.raises(mg.MgnpError, match="cannot be read as a saved circuit"):
        mg.load_circuit(tmp_path / "c")


def test_a_circuit_with_the_checksum_of_its_arrays_alone_is_read(tmp_path: Path) -> None:
    circuit = a_circuit()
    trees = {name: getattr(circuit, name) for name in TREES if getattr(circuit, name) is not None}
    for name, found in (("good", mg.checksum(trees)), ("bad", "0" * 64)):
        save_trees(tmp_path / name, trees, {**circuit.metadata, "checksum": found})
    loaded = mg.load_circuit(tmp_path / "good")
    chex.assert_trees_all_equal(loaded.masks, circuit.masks)
    assert loaded.metadata == circuit.metadata
    with pytest.raises(mg.MgnpError, match="checksum"):
        mg.load_circuit(tmp_path / "bad")


def test_orbax_reads_what_is_saved(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    circuit = a_circuit()
    circuit.save(tmp_path / "c")
    found = ocp.load_checkpointables(str(tmp_path / "c"))
    chex.assert_trees_all_equal(found["masks"], jax.device_get(circuit.masks))
    chex.assert_trees_all_equal(found["log_alpha"], jax.device_get(circuit.log_alpha))


def test_a_folder_whose_name_is_not_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for use in (a_circuit().save, mg.load_circuit):
        with pytest.raises(mg.MgnpError, match="bytes in its name that are not text"):
            use(folder)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model": ["a"]}, "metadata model must be str"),
        ({"origin": "ioi"}, "metadata origin must be dict"),
        ({"origin": {"seed": "0"}}, "origin: metadata seed must be int"),
        ({"figures": 3}, "metadata figures must be dict"),
        ({"origin": {"seed": True}}, "origin: metadata seed must be int, got True"),
        ({"origin": {"seed": -1}}, "origin: metadata seed must be at least 0, got -1"),
        ({"origin": {"train_prompts": 0}}, "origin: metadata train_prompts must be at least 1"),
        ({"origin": {"train_prompts": "9"}}, "origin: metadata train_prompts must be int"),
        ({"test_prompts": 0}, "metadata test_prompts must be at least 1, got 0"),
    ],
)
def test_metadata_that_the_commands_cannot_read_is_refused(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    trees = {"masks": masks()}
    saved = {"circuit": metadata, "sha256": mg.checksum(trees, metadata)}
    save_trees(tmp_path / "c", trees, saved)
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_circuit(tmp_path / "c")
    with pytest.raises(mg.MgnpError, match=message):
        mg.Circuit(masks=masks(), metadata=metadata).save(tmp_path / "again")
    known = {"model": "m", "origin": {"seed": 0, "metric": None}, "figures": None, "mine": [1]}
    mg.Circuit(masks=masks(), metadata=known).save(tmp_path / "known")
    assert mg.load_circuit(tmp_path / "known").metadata == known


def test_metadata_larger_than_what_is_read_is_neither_read_nor_written(
    saved: tuple[Path, Files], tmp_path: Path
) -> None:
    shutil.copytree(saved[0], tmp_path / "c")
    with (tmp_path / "c" / METADATA).open("ab") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(mg.MgnpError, match="10,000,001 bytes, wanted at most 10,000,000"):
        mg.load_circuit(tmp_path / "c")
    circuit = mg.Circuit(masks=masks(), metadata={"mine": "x" * LARGEST_FILE})
    with pytest.raises(mg.MgnpError, match="wanted at most 5,000,000; .*nothing was written"):
        circuit.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
