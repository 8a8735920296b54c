"""What transformers decides, ours decides alike: tiny checkpoints through its torch model."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import mgnp_jax as mg
from mgnp_jax.models.files import INDEX, ONE_FILE
from mgnp_jax.models.rope_config import read_rope, write_rope
from mgnp_jax.models.rotary import frequencies
from mgnp_jax.models.weights import tensors_from_params
from tests import tiny

TOKENS = (np.arange(20).reshape(2, 10) * 7) % 37
Tensors = dict[str, np.ndarray]
SHARDS = tuple(f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def torch_logits(folder: Path) -> np.ndarray:
    torch = pytest.importorskip("torch")
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    transformers.logging.set_verbosity(verbosity)
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def same_as_torch(folder: Path) -> mg.Model:
    """Our model of a folder whose logits are torch's."""
    model = mg.load_model(folder)
    got, wanted = mg.forward(model.config, model.params, TOKENS), torch_logits(folder)
    assert wanted.std() > 0.5
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_saved_is_the_same_model_in_transformers(family: str, tmp_path: Path) -> None:
    mg.save_model(tiny.model(family), tmp_path)
    assert same_as_torch(tmp_path).config == tiny.FAMILIES[family]


def lively(family: str, *, tied: bool, seed: int = 0) -> tuple[dict[str, Any], Tensors]:
    """A config.json and its tensors, with a head of its own where it is untied."""
    config = tiny.CONFIGS[family]
    raw = config.family.write_config(config) | {"tie_word_embeddings": tied}
    config = config.family.read_config(raw)
    return raw, tensors_from_params(config, tiny.lively_params(config, seed))


def write(folder: Path, raw: dict[str, Any], tensors: Tensors) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    safetensors.numpy.save_file(tensors, folder / ONE_FILE, metadata={"format": "pt"})
    return folder


def shard(folder: Path, tensors: Tensors, files: tuple[str, ...] = SHARDS) -> dict[str, str]:
    """Writes tensors in turns into these files; returns which lies where."""
    names, where = sorted(tensors), {}
    for i, file in enumerate(files):
        part = names[i :: len(files)]
        safetensors.numpy.save_file({n: tensors[n] for n in part}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


EMBEDDING = {
    "gpt2": "transformer.wte.weight",
    "llama": "model.embed_tokens.weight",
    "qwen2": "model.embed_tokens.weight",
}


@pytest.mark.parametrize("family", tiny.CONFIGS)
@pytest.mark.parametrize("case", ["differs", "is the same", "alone"])
def test_a_tie_is_what_transformers_makes_of_it(tmp_path: Path, family: str, case: str) -> None:
    raw, tensors = lively(family, tied=False)
    name = EMBEDDING[family]
    if case == "is the same":
        tensors["lm_head.weight"] = tensors[name].copy()
    elif case == "alone":
        del tensors[name]
    folder = write(tmp_path, raw | {"tie_word_embeddings": True}, tensors)
    model = mg.load_model(folder)
    assert model.config.tied == (case != "differs")
    said = {"differs": "the two differ", "is the same": "", "alone": f"has no {name}: lm_head"}
    assert len(model.notes) == bool(said[case]) and said[case] in " ".join(model.notes)
    same_as_torch(folder)


def test_an_untied_model_without_its_head_is_refused(tmp_path: Path) -> None:
    raw, tensors = lively("llama", tied=False)
    del tensors["lm_head.weight"]
    with pytest.raises(mg.MgnpError, match=r"lacks the tensor lm_head.*tie_word_embeddings true"):
        mg.load_model(write(tmp_path, raw, tensors))


def old_shards(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    shard(folder, lively("llama", tied=False, seed=1)[1])
    write(folder, raw, tensors)


def index_alone(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    old_shards(folder, raw, tensors)
    for name in SHARDS:
        (folder / name).unlink()


def two_shardings(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    other = tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
    shard(folder, lively("llama", tied=False, seed=1)[1], other)
    shard(folder, tensors)


def another_shard(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    where = shard(folder, tensors)
    swapped = {n: SHARDS[1 - SHARDS.index(file)] for n, file in where.items()}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": swapped}))


def another_head(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    write(folder, raw, tensors | {"v_head.summary.weight": np.ones((1, 12), np.float32)})


def bare(folder: Path, raw: dict[str, Any], tensors: Tensors) -> None:
    write(folder, raw, {n.removeprefix("model."): t for n, t in tensors.items()})


@pytest.mark.parametrize(
    ("lay", "said"),
    [
        (old_shards, r"second set of weights \('model-00001.* and 2 more\): 'model.safetensors'"),
        (index_alone, r"second set of weights \('model.safetensors.index.json'\)"),
        (two_shardings, "second set of weights .*00003.* the 2 shards of"),
        (another_shard, ""),
        (another_head, "left out: 'v_head.summary.weight'"),
        (bare, ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_files_are_those_that_transformers_reads(
    tmp_path: Path, lay: Callable[..., None], said: str
) -> None:
    raw, tensors = lively("llama", tied=False)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    lay(tmp_path, raw, tensors)
    notes = " ".join(mg.load_model(tmp_path).notes)
    assert re.search(said, notes) and bool(said) == bool(notes)
    same_as_torch(tmp_path)


PLACES: list[dict[str, Any]] = [
    {},
    {"rope_theta": 5e5},
    {"rope_theta": 500000, "rope_scaling": None},
    {"rope_parameters": {"rope_theta": 5e5}},
    {"rope_parameters": {"type": "default", "rope_theta": 5e5}},
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 5e5},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 5e5}, "rope_parameters": None},
    {"rope_scaling": {}, "rope_parameters": {"rope_theta": 5e5}},
    {"partial_rotary_factor": 0.5, "rope_theta": 5e5},
]
CONTRADICTIONS: list[dict[str, Any]] = [
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 1e4},
    {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 5e5}},
    {"rope_scaling": {"rope_theta": 1e4}, "rope_parameters": {"rope_theta": 5e5}},
]


def transformers_theta(raw: dict[str, Any]) -> float:
    from transformers import LlamaConfig

    return LlamaConfig(**json.loads(json.dumps(raw))).rope_parameters["rope_theta"]  # pyright: ignore


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_rotary_base_is_that_of_transformers(place: dict[str, Any]) -> None:
    assert read_rope(place, 16)[0] == transformers_theta(place)


@pytest.mark.parametrize("place", CONTRADICTIONS, ids=str)
def test_places_that_disagree_on_the_base_are_named(place: dict[str, Any]) -> None:
    taken = f"{transformers_theta(place):g}".replace("+", r"\+")
    with pytest.raises(mg.MgnpError, match=rf"500000.* transformers 5 takes {taken};"):
        read_rope(place, 16)


SCALED: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 8.0},
    {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    {"rope_type": "yarn", "factor": 4.0, "truncate": False, "attention_factor": 0.9},
    {"rope_type": "yarn", "factor": 40.0, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_slow": 2},
    {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 4096},
    {"rope_type": "dynamic", "factor": 2.0},
]


@pytest.mark.parametrize("scaling", SCALED, ids=str)
def test_scaled_angles_are_those_of_transformers(scaling: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    raw = {"rope_theta": 5e5, "rope_scaling": scaling, "max_position_embeddings": 131072}
    theta, ours = read_rope(raw, 131072)
    theirs: Any = transformers.LlamaConfig(**json.loads(json.dumps(raw)), head_dim=128)
    kind = theirs.rope_parameters["rope_type"]
    wanted, amplitude = ROPE_INIT_FUNCTIONS[kind](theirs, None)
    np.testing.assert_allclose(frequencies(theta, 128, ours), wanted.numpy(), rtol=1e-5)
    assert amplitude == pytest.approx(1.0 if ours is None else ours.amplitude)
    # And it is read back as it is written down.
    config = dataclasses.replace(tiny.LLAMA, rope_theta=theta, rope_scaling=ours)
    assert read_rope(write_rope(config), 131072) == (theta, ours)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"rope_scaling": SCALED[0], "rope_parameters": SCALED[1]},
            "'rope_scaling' = .* and 'rope_parameters' = .*takes the first",
        ),
        ({"rope_scaling": SCALED[1] | {"low_freq_factor": 4.0}}, "low_freq_factor below its high"),
        ({"rope_scaling": SCALED[2] | {"factor": -1}}, "'factor' = -1, wanted a number from"),
        ({"rope_scaling": SCALED[2], "rope_theta": 1}, "yarn wants one above 1"),
        ({"rope_scaling": SCALED[3] | {"truncate": 1}}, "truncate' = 1, wanted true or false"),
        ({"rope_scaling": SCALED[2], "original_max_position_embeddings": 5}, "= 5 and .*= 32768"),
        ({"rope_scaling": SCALED[0], "partial_rotary_factor": 0.5}, "not supported together"),
        ({"rope_scaling": SCALED[2] | {"original_max_position_embeddings": 0.5}}, "an integer"),
    ],
    ids=str,
)
def test_scaled_positions_that_cannot_be_are_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        read_rope(raw, 131072)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_keys_left_out_have_transformers_defaults(family: str, tmp_path: Path) -> None:
    raw, tensors = lively(family, tied=False)
    for key in ("hidden_act", "rms_norm_eps", "rope_theta", "tie_word_embeddings"):
        raw.pop(key)
    same_as_torch(write(tmp_path, raw, tensors))


INERT = {
    "gpt2": {"attn_pdrop": 0.5, "summary_type": "mean", "n_special": 3, "sliding_window": 4,
             "pruned_heads": {"0": [1]}, "n_ctx": 5, "is_decoder": True, "dtype": "float32"},
    "llama": {"attention_dropout": 0.5, "pretraining_tp": 2, "pad_token_id": 0,
              "partial_rotary_factor": 0.5, "is_llama_config": True},
    "qwen2": {"attention_dropout": 0.5, "max_window_layers": 1, "sliding_window": 4,
              "use_mrope": False, "use_cache": False},
}  # fmt: skip


@pytest.mark.parametrize("family", INERT)
def test_what_is_left_unread_changes_nothing_in_transformers(family: str, tmp_path: Path) -> None:
    raw, tensors = lively(family, tied=False)
    same_as_torch(write(tmp_path, raw | INERT[family], tensors))


@pytest.mark.parametrize(
    "change", [{"is_causal": False}, {"transformers_weights": "other.safetensors"}], ids=str
)
def test_undeclared_keys_that_transformers_acts_on_are_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    raw, tensors = lively("llama", tied=False)
    write(tmp_path, raw, lively("llama", tied=False, seed=1)[1])
    (tmp_path / ONE_FILE).rename(tmp_path / "other.safetensors")
    write(tmp_path, raw, tensors)
    plain = same_as_torch(tmp_path)
    write(tmp_path, raw | change, tensors)
    with pytest.raises(mg.MgnpError, match=next(iter(change))):
        mg.load_model(tmp_path)
    ours = np.asarray(mg.forward(plain.config, plain.params, TOKENS))
    assert np.abs(torch_logits(tmp_path) - ours).max() > 0.1
