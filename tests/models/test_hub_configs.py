"""config.json of models that people have, with all their keys: read as transformers reads them."""

from __future__ import annotations

from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.families import family_named
from tests.models.hub_configs import OTHERS
from tests.models.test_config import GPT2_HUB, LLAMA_HUB, QWEN2_HUB

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "num_attention_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
LLAMA_3_2 = LLAMA | {
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0.dev0",
    "vocab_size": 128256,
}
NAMES = {
    "kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size ffn_dim",
    "norm_eps": "rms_norm_eps layer_norm_eps layer_norm_epsilon",
    "head_width": "head_dim",
    "activation": "hidden_act hidden_activation activation_function",
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
    "query_scalar": "query_pre_attn_scalar",
    "parallel": "use_parallel_residual",
}
"""Fields of `ModelConfig` → what families call them."""
HUB: dict[str, dict[str, Any]] = {
    "gpt2": GPT2_HUB,
    "gpt2-medium": GPT2_HUB
    | {
        "n_embd": 1024,
        "n_head": 16,
        "n_layer": 24,
        "n_special": 0,
        "predict_special_tokens": True,
    },
    "gpt2-large": GPT2_HUB | {"n_embd": 1280, "n_head": 20, "n_layer": 36},
    "gpt2-xl": GPT2_HUB | {"n_embd": 1600, "n_head": 25, "n_layer": 48, "output_past": True},
    "distilgpt2": GPT2_HUB
    | {
        "_num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "n_layer": 6,
    },
    "SmolLM2-135M": LLAMA_HUB,
    "TinyLlama-1.1B": LLAMA
    | {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 22,
        "num_key_value_heads": 4,
        "rope_theta": 10000.0,
        "transformers_version": "4.35.0",
        "vocab_size": 32000,
    },
    "Meta-Llama-3-8B": LLAMA
    | {
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rope_theta": 500000.0,
        "transformers_version": "4.40.0.dev0",
        "vocab_size": 128256,
    },
    "Llama-3.2-1B": LLAMA_3_2,
    "Qwen2.5-0.5B": QWEN2_HUB,
    "Qwen2.5-1.5B": QWEN2_HUB
    | {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "max_position_embeddings": 131072,
        "max_window_layers": 28,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "sliding_window": 131072,
    },
    "Llama-3.1-8B": LLAMA_3_2
    | {
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "rope_scaling": LLAMA_3_2["rope_scaling"] | {"factor": 8.0},
        "tie_word_embeddings": False,
    },
    **OTHERS,
}


@pytest.mark.parametrize("name", HUB)
@pytest.mark.parametrize("saved_again", [False, True])
def test_configs_of_the_hub_are_read_as_transformers_reads_them(
    name: str, saved_again: bool
) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    theirs = CONFIG_MAPPING[HUB[name]["model_type"]](**HUB[name])
    # As this version of transformers would write it down: more keys, and some elsewhere.
    raw = theirs.to_dict() if saved_again else HUB[name]
    config = family_named(raw["model_type"]).read_config(raw)
    text: Any = theirs.get_text_config()
    assert (config.layers, config.width, config.heads, config.vocab_size, config.context) == (
        text.num_hidden_layers,
        text.hidden_size,
        text.num_attention_heads,
        text.vocab_size,
        text.max_position_embeddings,
    )
    assert config.tied == text.tie_word_embeddings
    for ours, theirs in NAMES.items():
        said = [getattr(text, name) for name in theirs.split() if hasattr(text, name)]
        if raw["model_type"] == "gemma" and ours == "activation":
            # Published configs mean the approximation; transformers says so since after 5.0.
            said = ["gelu_pytorch_tanh" if each == "gelu" else each for each in said]
        assert not said or getattr(config, ours) in said, (ours, said)
    rope = getattr(text, "rope_parameters", None)
    if rope is not None:
        rope = rope.get("full_attention", rope)
        assert config.rope_theta == rope["rope_theta"]
        assert (config.rope_scaling is None) == (rope["rope_type"] == "default")
        assert config.turned == int(config.head_width * rope.get("partial_rotary_factor", 1))
    windowed = [kind == "sliding_attention" for kind in getattr(text, "layer_types", None) or ()]
    if windowed:
        assert [window > 0 for window in config.windows or [0] * config.layers] == windowed


def test_attention_of_the_mistral_gpt2s_is_refused_by_name() -> None:
    raw = GPT2_HUB | {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(mg.MgnpError, match="'reorder_and_upcast_attn' = True.*wanted False"):
        family_named("gpt2").read_config(raw)
