"""Logits equal transformers' torch models; golden values where torch is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.models.families import family_named
from mgnp_jax.models.weights import params_from_tensors
from tests.golden import make

GOLDEN = json.loads((Path(make.__file__).parent / "logits.json").read_text())


def compare(model: Any, raw: dict[str, Any], tokens: np.ndarray, mask: np.ndarray) -> float:
    """Largest difference between a torch model's logits and ours, as a share of the largest logit.

    On real positions alone.
    """
    import torch

    tensors = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    config = family_named(raw["model_type"]).read_config(raw)
    config, params, notes = params_from_tensors(config, tensors)
    assert not notes
    with torch.no_grad():
        wanted = model.eval()(
            torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).logits.numpy()
    got = np.asarray(mg.forward(config, params, jnp.asarray(tokens), jnp.asarray(mask)))
    # Zeros compared with zeros prove nothing.
    assert wanted[mask].std() > 0.5
    return float(np.abs(got[mask] - wanted[mask]).max() / np.abs(wanted[mask]).max())


def prompts(vocabulary: int, rows: int = 3, length: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, (rows, length), np.int32)
    lengths = np.array([length, length - 2, length - 5])[:rows]
    return tokens, np.arange(length)[None] < lengths[:, None]


@pytest.mark.parametrize("name", sorted(make.CASES))
def test_tiny_models_match_torch(name: str) -> None:
    pytest.importorskip("torch")
    model, raw = make.torch_model(name)
    assert compare(model, raw, *prompts(raw["vocab_size"])) < 1e-5


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("smollm3", {"rope_scaling": YARN}),
        ("gemma3", {"rope_scaling": YARN}),
        # As long as the context, so that it hides nothing: its layers' angles are others still.
        ("gemma3", {"sliding_window": 32}),
    ],
    ids=str,
)
def test_layers_with_angles_of_their_own_match_torch(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(make.CASES, "changed", make.CASES[name] | changes)
    model, raw = make.torch_model("changed")
    assert compare(model, raw, *prompts(raw["vocab_size"])) < 1e-5


ATTENTION_OUT = "attn.c_proj self_attn.o_proj attention.dense attn.out_proj self_attn.out_proj"
MLP_OUT = "mlp.c_proj mlp.down_proj mlp.dense_4h_to_h mlp.fc_out fc2"


def module(layer: Any, names: str) -> Any:
    """The first of these that a torch layer has."""
    parts = dict(layer.named_modules())
    return next(parts[name] for name in names.split() if name in parts)


def masked_torch(
    model: Any,
    masks: dict[str, np.ndarray],
    clean: np.ndarray,
    corrupted: np.ndarray,
    norm_after: bool,
) -> np.ndarray:
    """The masked run written as hooks on the torch model: what a module reads and writes, mixed."""
    import torch

    inner = getattr(model, model.base_model_prefix)
    inner = getattr(inner, "decoder", inner)
    reads: dict[Any, Any] = {}
    writes: dict[Any, Any] = {}
    seen: dict[Any, Any] = {}
    for i, layer in enumerate(inner.h if hasattr(inner, "h") else inner.layers):
        attention, mlp = module(layer, ATTENTION_OUT), module(layer, MLP_OUT)
        reads[attention] = (
            masks["attention_heads"][i][:, None] * masks["attention_neurons"][i]
        ).ravel()
        reads[mlp] = masks["mlp_hidden"][i]
        if norm_after:
            attention, mlp = layer.post_attention_layernorm, layer.post_feedforward_layernorm
        writes[attention] = masks["attention_blocks"][i]
        writes[mlp] = masks["mlp_output"][i] * masks["mlp_blocks"][i]

    def mixed(gate: Any, own: Any, other: Any) -> Any:
        return other + torch.tensor(gate) * (own - other)

    def run(tokens: np.ndarray, read: Any, write: Any) -> np.ndarray:
        hooks = [m.register_forward_pre_hook(read) for m in reads]
        hooks += [m.register_forward_hook(write) for m in writes]
        with torch.no_grad():
            logits = model(torch.tensor(tokens).long()).logits.numpy()
        for hook in hooks:
            hook.remove()
        return logits

    run(
        corrupted,
        lambda module, args: seen.__setitem__((module, 0), args[0]),
        lambda module, args, out: seen.__setitem__((module, 1), out),
    )
    return run(
        clean,
        lambda module, args: (mixed(reads[module], args[0], seen[module, 0]),),
        lambda module, args, out: mixed(writes[module], out, seen[module, 1]),
    )


# A second case of a family differs from its first in what no mask meets.
@pytest.mark.parametrize(
    "name",
    [
        name if "-" not in name else pytest.param(name, marks=pytest.mark.full)
        for name in sorted(make.CASES)
    ],
)
def test_masked_passes_match_torch_with_hooks(name: str) -> None:
    pytest.importorskip("torch")
    model, _ = make.torch_model(name)
    config, params = make.ours(name)
    rng = np.random.default_rng(1)
    masks = {n: rng.random(m.shape, np.float32) for n, m in mg.full_masks(config).items()}
    clean, _ = prompts(config.vocab_size)
    corrupted = (clean + rng.integers(1, 9, clean.shape)).astype(np.int32) % config.vocab_size
    wanted = masked_torch(model, masks, clean, corrupted, config.norm_after)
    got = mg.two_stream_forward(config, params, masks, clean, corrupted)
    plain = np.asarray(mg.forward(config, params, clean))
    assert np.abs(wanted - plain).max() > 0.1
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
def test_the_full_gpt2_small_shape_matches_torch() -> None:
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(initializer_range=0.03)
    model = transformers.GPT2LMHeadModel(config)
    assert compare(model, config.to_dict(), *prompts(config.vocab_size, length=16)) < 1e-4


@pytest.mark.parametrize("name", sorted(make.CASES))
def test_tiny_models_match_golden_logits(name: str) -> None:
    config, params = make.ours(name)
    tokens, mask = prompts(config.vocab_size)
    got = np.asarray(mg.forward(config, params, jnp.asarray(tokens), jnp.asarray(mask)))
    wanted = np.array(GOLDEN[name], np.float32)
    assert wanted.std() > 0.5
    np.testing.assert_allclose(got[mask][:, : wanted.shape[1]], wanted, atol=1e-4)
