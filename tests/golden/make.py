"""Makes logits.json: transformers' torch logits of tiny models with seeded NumPy weights.

python -m tests.golden.make
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import mgnp_jax as mg
from mgnp_jax.models.families import family_named
from mgnp_jax.models.weights import param_shapes, params_from_tensors

SHOWN = 8
"""Vocabulary entries whose logits are kept."""

CASES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 32,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 4,
    },
    "gpt2-relu-untied": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 32,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": False,
    },
    "llama": {
        "model_type": "llama",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "llama-untied": {
        "model_type": "llama",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        "model_type": "qwen2",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
}


def tensors(name: str) -> dict[str, np.ndarray]:
    """A checkpoint's tensors, each drawn from a generator seeded with its name."""
    raw = CASES[name]
    family = family_named(raw["model_type"])
    config = family.read_config(raw)
    shapes = param_shapes(config)
    out = {}
    for path, source in family.sources(config).items():
        shape = shapes[path][1:] if path.startswith("blocks/") else shapes[path]
        shape = shape[::-1] if source.transpose else shape
        for layer in range(config.layers if path.startswith("blocks/") else 1):
            key = source.name.format(layer=layer)
            rng = np.random.default_rng(zlib.crc32(key.encode()))
            centre = 1.0 if path.endswith("scale") else 0.0
            out[key] = (centre + 0.25 * rng.standard_normal(shape)).astype(np.float32)
    return out


def ours(name: str) -> tuple[mg.ModelConfig, mg.Params]:
    """The case in this package."""
    raw = CASES[name]
    config = family_named(raw["model_type"]).read_config(raw)
    return config, params_from_tensors(config, tensors(name)).params


def torch_model(name: str) -> tuple[Any, dict[str, Any]]:
    """The case in transformers."""
    import torch
    import transformers

    raw = CASES[name]
    kinds = {
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    make_config, make_model = kinds[raw["model_type"]]
    given = {k: v for k, v in raw.items() if k != "model_type"}
    model = make_model(make_config(**given, bos_token_id=0, eos_token_id=0))
    state = {k: torch.tensor(v) for k, v in tensors(name).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.eval(), raw


def main() -> None:
    """Writes the file."""
    import torch

    from tests.models.test_parity import prompts

    golden = {}
    for name, raw in CASES.items():
        tokens, mask = prompts(raw["vocab_size"])
        model, _ = torch_model(name)
        with torch.no_grad():
            logits = model(
                torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
            ).logits.numpy()
        golden[name] = [[round(float(v), 6) for v in row[:SHOWN]] for row in logits[mask]]
    Path(__file__).with_name("logits.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
