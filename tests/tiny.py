"""Tiny models and prompts that every test file can afford."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import FAMILIES as FAMILY_TABLE
from mgnp_jax.models.families.gpt2 import GPT2 as GPT2_FAMILY
from mgnp_jax.models.families.llama import LLAMA as LLAMA_FAMILY
from mgnp_jax.models.families.qwen2 import QWEN2 as QWEN2_FAMILY
from mgnp_jax.models.hub import Model
from mgnp_jax.models.weights import init_params, param_shapes
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Answers, Batch, Masks, Params, Score, Targets

GPT2 = ModelConfig(
    family=GPT2_FAMILY,
    vocab_size=37,
    context=16,
    layers=3,
    width=12,
    heads=4,
    kv_heads=4,
    head_width=3,
    mlp_width=20,
    activation="gelu_new",
    norm="layer",
    norm_eps=1e-5,
    qkv_bias=True,
    fused_qkv=True,
    attention_bias=True,
    mlp_bias=True,
    tied=True,
)
LLAMA = ModelConfig(
    family=LLAMA_FAMILY,
    vocab_size=37,
    context=16,
    layers=3,
    width=12,
    heads=4,
    kv_heads=2,
    head_width=4,
    mlp_width=20,
    activation="silu",
    norm="rms",
    norm_eps=1e-5,
    rope_theta=10_000.0,
    gated_mlp=True,
)
QWEN2 = dataclasses.replace(LLAMA, family=QWEN2_FAMILY, qkv_bias=True, tied=True)
CONFIGS = {"gpt2": GPT2, "llama": LLAMA, "qwen2": QWEN2}

POST_NORM = dataclasses.replace(LLAMA, norm_after=True)
PARALLEL = dataclasses.replace(GPT2, parallel=True)
ODD = {"post-norm": POST_NORM, "parallel": PARALLEL}
"""Blocks with one feature of some families, for the passes that must not mind."""

_ROTARY = dataclasses.replace(GPT2, fused_qkv=False, tied=False, rope_theta=100.0, head_width=4)
_GEMMA = dataclasses.replace(
    LLAMA, activation="gelu_pytorch_tanh", norm_offset=True, embedding_scale=12**0.5, tied=True
)
_CAPPED = dataclasses.replace(_GEMMA, norm_after=True, query_scalar=5.0, windows=(3, 0, 3))
FAMILIES = CONFIGS | {
    name: dataclasses.replace(base, family=FAMILY_TABLE[name], **fields)
    for name, base, fields in (
        ("qwen3", LLAMA, {"qk_norm": "head", "windows": (0, 3, 3)}),
        ("mistral", LLAMA, {"windows": (3, 3, 3)}),
        ("smollm3", LLAMA, {"unrotated": (1,)}),
        ("olmo2", LLAMA, {"qk_norm": "all", "norm_before": False, "norm_after": True}),
        ("phi3", LLAMA, {"rope_width": 2, "windows": (4, 4, 4)}),
        ("gemma", _GEMMA, {}),
        ("gemma2", _CAPPED, {"attention_cap": 2.0, "logit_cap": 5.0}),
        ("gemma3_text", _CAPPED, {"qk_norm": "head", "local_rope_theta": 20.0}),
        ("gpt_neox", _ROTARY, {"width": 16, "parallel": True, "rope_width": 2}),
        (
            "gptj",
            _ROTARY,
            {"width": 16, "parallel": True, "rope_width": 2, "shared_norm": True, "qkv_bias": False}
            | {"attention_bias": False, "head_bias": True, "rope_theta": 10_000.0},
        ),
        ("opt", GPT2, {"fused_qkv": False, "activation": "relu"}),
    )
}
"""A tiny shape of every family, with what sets it apart turned on."""

DIFFERENT = ("gpt2", "llama", "gpt_neox", "gemma2", "olmo2")
"""Families that between them have nearly all of that."""


def each_family(*names: str, but: tuple[str, ...] = ()) -> list[Any]:
    """Parameters of a test: these families by default, the others with the full tests.

    Args:
      names: of families.
      but: left out altogether.
    """
    others = (name for name in FAMILIES | ODD if name not in (*names, *but))
    return [*names, *(pytest.param(name, marks=pytest.mark.full) for name in others)]


def lively_params(config: ModelConfig, seed: int = 0) -> Params:
    """Random weights large enough that no node's value is near zero."""
    shapes = param_shapes(config)
    rng = np.random.default_rng(seed)
    params = init_params(jax.random.key(seed), config)
    assert len(jax.tree.leaves(params)) == len(shapes)
    return jax.tree.map(
        lambda leaf: leaf + np.asarray(0.3 * rng.standard_normal(leaf.shape), np.float32), params
    )


def batch(
    config: ModelConfig, rows: int = 6, length: int = 7, seed: int = 1, shared: int = 0
) -> Batch:
    """Random prompts of different lengths, right-padded, with two answer tokens each.

    As many tokens as `shared` says, fewer in some rows, come before a pair's first difference.
    """
    rng = np.random.default_rng(seed)
    clean, corrupted = rng.integers(0, config.vocab_size, (2, rows, length), np.int32)
    if shared:
        starts = rng.integers(0, shared + 1, rows)
        starts[0] = shared
        same = np.arange(length)[None] < starts[:, None]
        corrupted = np.where(same, clean, corrupted)
        first = np.arange(length)[None] == starts[:, None]
        corrupted = np.where(first, (clean + 1) % config.vocab_size, corrupted)
    lengths = rng.integers(length - 3, length + 1, rows)
    mask = np.arange(length)[None] < lengths[:, None]
    answers = np.stack([rng.permutation(config.vocab_size)[:2] for _ in range(rows)])
    signs = np.tile(np.array([1.0, -1.0], np.float32), (rows, 1))
    known = Answers(tokens=answers.astype(np.int32), signs=signs)
    scores = {"score": Score(answers=known, metric=logit_difference)}
    targets = Targets(answers=known, scores=scores)
    return Batch(clean=clean, corrupted=corrupted, attention_mask=mask, targets=targets)


@functools.cache
def model(family: str) -> Model:
    """A tiny random model without tokenizer."""
    config = (FAMILIES | ODD)[family]
    return Model(name=f"tiny-{family}", config=config, params=lively_params(config), tokenizer=None)


def data(config: ModelConfig) -> TaskData:
    """Three splits of random prompts."""
    train, validation, test = (batch(config, rows=10, seed=seed) for seed in range(3))
    return TaskData(
        name="random", source="random", seed=0, train=train, validation=validation, test=test
    )


def log_alpha(circuit: Circuit) -> Masks:
    """What a trained circuit was taken from."""
    assert circuit.log_alpha is not None
    return circuit.log_alpha


def assert_near(found: Any, expected: Any, atol: float = 1e-5, rtol: float = 1e-7) -> None:
    """Numbers of two computed runs differ by no more than rounding moves them.

    On CPUs by the bounds as they are. Accelerators add in other orders, which moves what is left of
    large terms as much as these: there each of the two may be off by `atol` of its leaf's largest.
    Factors rounded to ten bits, which are GPUs' default, would move it some fifty times further.
    """

    def near(path: Any, found: Any, expected: Any) -> None:
        most = atol
        if jax.default_backend() != "cpu":
            most *= 2 * max(1.0, float(np.abs(expected).max(initial=0.0)))
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=most, err_msg=name)

    jax.tree_util.tree_map_with_path(near, found, jax.tree.map(np.asarray, expected))
