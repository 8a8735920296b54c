"""Loading by name, directory and hub; saving; and what each refusal says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import chex
import huggingface_hub
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import mgnp_jax as mg
from mgnp_jax.metrics.scores import answered_rightly, score
from mgnp_jax.models.weights import tensors_from_params
from mgnp_jax.passes.caching import cache_logits
from tests import tiny


def test_saved_models_load_the_same(any_family: mg.Model, tmp_path: Path) -> None:
    mg.save_model(any_family, str(tmp_path / "m"))
    loaded = mg.load_model(str(tmp_path / "m"))
    assert loaded.config == any_family.config
    assert loaded.tokenizer is None
    chex.assert_trees_all_equal(loaded.params, any_family.params)


def test_sharded_checkpoints_load_the_same(any_family: mg.Model, tmp_path: Path) -> None:
    mg.save_model(any_family, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tensors = tensors_from_params(any_family.config, any_family.params)
    names = sorted(tensors)
    index: dict[str, str] = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        safetensors.numpy.save_file({n: tensors[n] for n in part}, tmp_path / file)
        index |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    chex.assert_trees_all_equal(mg.load_model(str(tmp_path)).params, any_family.params)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(mg.MgnpError, match="names the shard 'model-00002-of-00002"):
        mg.load_model(str(tmp_path))


def rewrite(folder: Path, change: object) -> None:
    model = tiny.model("gpt2")
    mg.save_model(model, folder)
    tensors = tensors_from_params(model.config, model.params)
    safetensors.numpy.save_file(change(tensors), folder / "model.safetensors")  # type: ignore[operator]


def test_names_without_prefix_and_buffers_of_old_checkpoints_load(tmp_path: Path) -> None:
    def old(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bare = {k.removeprefix("transformer."): v for k, v in tensors.items()}
        buffers = {f"h.{i}.attn.bias": np.ones((1, 1, 16, 16), np.float32) for i in range(3)}
        return bare | buffers | {"lm_head.weight": tensors["transformer.wte.weight"].copy()}

    rewrite(tmp_path, old)
    chex.assert_trees_all_equal(mg.load_model(str(tmp_path)).params, tiny.model("gpt2").params)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    rewrite(tmp_path, lambda ts: {k: v.astype(np.float16) for k, v in ts.items()})
    params = mg.load_model(str(tmp_path)).params
    chex.assert_type([params["embeddings"]["token"]["embedding"]], np.float32)
    chex.assert_trees_all_close(params, tiny.model("gpt2").params, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda ts: {k: v for k, v in ts.items() if "h.1.mlp.c_fc.weight" not in k},
            "lacks the tensor transformer.h.1.mlp.c_fc.weight",
        ),
        (
            lambda ts: {**ts, "transformer.wpe.weight": np.zeros((3, 12), np.float32)},
            r"wpe.weight' has shape \(3, 12\), but config.json implies \(16, 12\)",
        ),
        (
            lambda ts: {**ts, "transformer.h.3.ln_1.weight": np.zeros(12, np.float32)},
            r"\(3 layers.*does not use: 'transformer.h.3.ln_1.weight",
        ),
    ],
    ids=["missing", "shape", "left-over"],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: object, message: str) -> None:
    rewrite(tmp_path, change)
    with pytest.raises(mg.MgnpError, match=message):
        mg.load_model(str(tmp_path))


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mg.MgnpError, match="no config.json; wanted a directory"):
        mg.load_model(str(tmp_path))
    mg.save_model(tiny.model("gpt2"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(mg.MgnpError, match="cannot be read as safetensors.*LFS pointer"):
        mg.load_model(str(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(mg.MgnpError, match="safetensors only, never from pickle"):
        mg.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(mg.MgnpError, match="is not JSON"):
        mg.load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_tokenizer_config_is_refused(mini: mg.Model, tmp_path: Path, text: str) -> None:
    mg.save_model(mini, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(mg.MgnpError, match="tokenizer_config.json (is not JSON|holds list)"):
        mg.load_model(str(tmp_path))


def test_hub_unreachable_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> str:
        raise RuntimeError("407 Proxy Authentication Required")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(mg.MgnpError) as error:
        mg.load_model("openai-community/gpt2")
    for part in (
        "openai-community/gpt2",
        "cannot be reached",
        "gpt2-mini",
        "path of its directory",
    ):
        assert part in str(error.value)


def test_a_name_that_is_no_model_is_refused() -> None:
    with pytest.raises(mg.MgnpError, match="unknown model 'no such model!'.*gpt2-mini"):
        mg.load_model("no such model!")


def test_a_hub_id_is_loaded_through_the_ordinary_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mg.save_model(tiny.model("gpt2"), tmp_path)
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        # Pickles are never fetched.
        assert not any(p.endswith(".bin") or p == "*" for p in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = mg.load_model("someone/tiny")
    assert asked == ["someone/tiny"] and loaded.name == "someone/tiny"
    chex.assert_trees_all_equal(loaded.params, tiny.model("gpt2").params)


def test_the_embedded_model_is_what_it_is_said_to_be(mini: mg.Model) -> None:
    from mgnp_jax.models.hub import ASSETS

    folder = ASSETS / "gpt2-mini"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in folder.iterdir()
    }
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8e6
    assert mini.family.name == "gpt2" and mini.config.layers >= 4 and mini.config.heads >= 4


@pytest.mark.parametrize("task", mg.TASKS)
def test_the_embedded_model_has_learnt_the_tasks(mini: mg.Model, task: str) -> None:
    """Nine answers in ten are right."""
    test = mg.load_task(task, mini.tokenizer, seed=7).test.spread(500)
    logits = jnp.asarray(cache_logits(mini.config, mini.params, test, 64))
    assert answered_rightly(test.targets.answers, logits).mean() >= 0.9


@pytest.mark.parametrize(
    ("task", "name", "least"),
    [("ioi", "score", 5.0), ("gp", "score", 5.0), ("gt", "prob_diff", 0.85)],
)
def test_the_embedded_model_is_sure(mini: mg.Model, task: str, name: str, least: float) -> None:
    test = mg.load_task(task, mini.tokenizer, seed=0).test.take(slice(2000))
    logits = jnp.asarray(cache_logits(mini.config, mini.params, test, 64))
    assert answered_rightly(test.targets.answers, logits).mean() >= 0.99
    assert score(test.targets.scores[name], logits).mean() >= least


def test_prompts_of_the_embedded_model_are_text(mini: mg.Model) -> None:
    assert mini.tokenizer is not None
    text = "Then Mary and John spent the day at the park, and John gave a book to"
    ids = mini.tokenizer(text)["input_ids"]
    assert mini.tokenizer.unk_token_id not in ids
    assert mini.tokenizer.decode(ids) == text


def test_models_cannot_be_changed(any_family: mg.Model) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        any_family.name = "other"  # type: ignore[misc]
