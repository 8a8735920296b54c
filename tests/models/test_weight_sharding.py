"""Checkpoints read by several devices, each of which holds and reads its own part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AbstractMesh

import mgnp_jax as mg
from mgnp_jax.models.families import FAMILIES
from mgnp_jax.models.files import ONE_FILE
from mgnp_jax.models.mesh import MODEL_AXIS, PROMPTS_AXIS
from mgnp_jax.models.weight_sharding import sharding_notes, weight_sharding
from mgnp_jax.models.weights import param_shapes, tensors_from_params, weights_checksum
from tests import tiny
from tests.passes.test_sharding import results, started

READ = """
import dataclasses, json, sys
import jax, numpy as np
import mgnp_jax as mg
from mgnp_jax.models.files import Stored
from mgnp_jax.models.weights import weights_checksum

read = Stored.__getitem__
bytes_read = [0]

def counted(self, index):
    part = read(self, index)
    bytes_read[0] += part.nbytes
    return part

Stored.__getitem__ = counted
for folder in sys.argv[1:]:
    for devices, shard in ((1, 1), (2, 2), (8, 4)):
        bytes_read[0] = 0
        model = mg.load_model(folder, devices=devices, shard=shard)
        leaves = jax.tree.leaves(model.params)
        print(json.dumps({
            "shard": shard,
            "read": bytes_read[0],
            "whole": sum(leaf.nbytes for leaf in leaves),
            "of_each": [
                sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards
                    if s.device == device)
                for device in jax.devices()[:devices]
            ],
            "checksum": weights_checksum(model.params),
            "notes": model.notes,
        }))
"""


def test_every_device_reads_and_holds_its_own_part(tmp_path: Path) -> None:
    # Fused and separate projections, shared queries, a head with a bias.
    families = ("gpt2", "llama", "phi3", "gptj")
    for family in families:
        mg.save_model(tiny.model(family), tmp_path / family)
    found = results(started(8, READ, *(tmp_path / family for family in families)))
    for i, family in enumerate(families):
        wanted = mg.checksum(tiny.model(family).params)
        alone = found[3 * i]
        for one in found[3 * i : 3 * i + 3]:
            assert one["checksum"] == wanted, (family, one["shard"])
            assert max(one["of_each"]) < 1.25 * one["whole"] / one["shard"], (family, one["shard"])
            # What several hold is read once for all of them; rows between those of a leaf are
            # read where it has every third of them.
            assert one["read"] <= 1.25 * alone["read"], (family, one["shard"])
        assert alone["notes"] == []
        assert any("cannot be divided by 4 devices" in note for note in found[3 * i + 2]["notes"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_every_family_is_cut(family: str) -> None:
    config = tiny.FAMILIES[family]
    mesh: Any = AbstractMesh((4, 2), (PROMPTS_AXIS, MODEL_AXIS))
    for path, shape in param_shapes(config).items():
        matrix = path.endswith(("kernel", "embedding"))
        cut = weight_sharding(config, mesh, path, shape).shard_shape(shape)
        # What several devices add to has one bias; 37 words have no half.
        own = ("qkv/bias", "/q/bias", "/k/bias", "/v/bias", "gate/bias", "up/bias")
        assert (np.prod(cut) < np.prod(shape)) == (matrix or path.endswith(own)), path
    notes = sharding_notes(config, mesh, param_shapes(config))
    # 37 words are an odd number; all else is even.
    assert [note.partition(" of ")[0] for note in notes] == ["the vocabulary"]
    assert "cut along the residual width instead" in notes[0]


def test_what_cannot_be_cut_at_all_is_everywhere_and_said() -> None:
    mesh: Any = AbstractMesh((1, 7), (PROMPTS_AXIS, MODEL_AXIS))
    shapes = param_shapes(tiny.LLAMA)
    for path, shape in shapes.items():
        assert weight_sharding(tiny.LLAMA, mesh, path, shape).shard_shape(shape) == shape
    told = " ".join(sharding_notes(tiny.LLAMA, mesh, shapes))
    assert told.count("cannot be divided by 7 devices: these weights are on every device") == 3
    assert "the heads of attention/" in told and "the MLP hidden neurons of mlp/" in told


def halves(folder: Path, dtype: Any) -> tuple[mg.Model, mg.Model]:
    """A checkpoint of 16 bits, read as float32 and as it is stored."""
    model = tiny.model("llama")
    folder.mkdir()
    raw = model.family.write_config(model.config)
    (folder / "config.json").write_text(json.dumps(raw))
    tensors = tensors_from_params(model.config, model.params)
    narrow = {name: leaf.astype(dtype) for name, leaf in tensors.items()}
    safetensors.numpy.save_file(narrow, folder / ONE_FILE)
    return mg.load_model(folder), mg.load_model(folder, dtype="stored")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_weights_of_16_bits_act_as_in_float32(tmp_path: Path, dtype: Any) -> None:
    wide, narrow = halves(tmp_path / "m", dtype)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(wide.params))
    assert 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(narrow.params)) == size
    assert weights_checksum(narrow.params) == mg.checksum(wide.params)
    batch = tiny.batch(wide.config)
    expected, got = (
        mg.forward(wide.config, model.params, batch.clean, batch.attention_mask)
        for model in (wide, narrow)
    )
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-5)
    masks = mg.full_masks(wide.config, 1.0)
    figures = [mg.evaluate(model, masks, batch) for model in (wide, narrow)]
    assert figures[1]["base_score"] == pytest.approx(figures[0]["base_score"], abs=1e-5)
    mg.save_model(narrow, tmp_path / "again")
    assert mg.checksum(mg.load_model(tmp_path / "again").params) == mg.checksum(wide.params)


def test_other_dtypes_are_refused() -> None:
    wrong: Any = "bfloat16"
    with pytest.raises(mg.MgnpError, match="dtype must be one of .*'stored'.*, got 'bfloat16'"):
        mg.load_model("gpt2-mini", dtype=wrong)


def test_what_is_stored_in_32_bits_stays_so(tmp_path: Path) -> None:
    mg.save_model(tiny.model("gpt2"), tmp_path)
    params = mg.load_model(tmp_path, dtype="stored").params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
