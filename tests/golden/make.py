"""Makes logits.json: transformers' torch logits of tiny models with seeded NumPy weights.

python -m tests.golden.make
"""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import mgnp_jax as mg
from mgnp_jax.models.families import family_named
from mgnp_jax.models.weights import param_shapes, params_from_tensors
from tests.golden.cases import CASES

SHOWN = 8
"""Vocabulary entries whose logits are kept."""


def tensors(name: str) -> dict[str, np.ndarray]:
    """A checkpoint's tensors, each drawn from a generator seeded with its name."""
    raw = CASES[name]
    family = family_named(raw["model_type"])
    config = family.read_config(raw)
    shapes = param_shapes(config)
    out = {}
    for path, source in family.sources(config).items():
        shape = source.stored(shapes[path][1:] if path.startswith("blocks/") else shapes[path])
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
    asked = copy.deepcopy(raw)
    if raw["model_type"] == "gemma" and raw.get("hidden_act") == "gelu":
        # Its first files mean the tanh form by this; transformers of 5.17 and before take it at
        # its word, later ones do not.
        asked["hidden_act"] = "gelu_pytorch_tanh"
    made = transformers.AutoConfig.for_model(**asked, bos_token_id=0, eos_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager")
    state = {k: torch.tensor(v) for k, v in tensors(name).items()}
    # GPT-NeoX's name of it in files is not that in memory.
    state = {k.replace("embed_out.", "lm_head."): v for k, v in state.items()}
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
