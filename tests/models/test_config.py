"""config.json: what is read, what is refused, and that every refusal names the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.families import family_named, gpt2, llama, qwen2
from tests import tiny

# The keys of the config.json that GPT-2 small has on the hub, values included.
GPT2_HUB = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
LLAMA_HUB = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 49152,
}


QWEN2_HUB = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_qwen2_of_the_hub_is_read() -> None:
    config = qwen2.read_config(QWEN2_HUB)
    assert (config.layers, config.heads, config.kv_heads, config.head_width) == (24, 14, 2, 64)
    assert config.qkv_bias and not config.attention_bias and config.rope_theta == 1e6


@pytest.mark.parametrize(
    "harmless",
    [
        {"n_special": 0, "predict_special_tokens": True},
        {"output_past": True},
        {"a_key_of_the_future": 1},
        {"summary_type": "mean"},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_keys_that_transformers_does_not_act_on_are_harmless(harmless: dict[str, Any]) -> None:
    # gpt2-medium's and gpt2-xl's own have some of these.
    assert gpt2.read_config({**GPT2_HUB, **harmless}) == gpt2.read_config(GPT2_HUB)


def test_a_family_that_transformers_does_not_know_must_name_its_keys() -> None:
    raw = {"model_type": "mine", "width": 3, "depth": 2}
    check_keys(raw, read=["width", "depth"])
    with pytest.raises(mg.MgnpError, match="no model_type 'mine'.*name all of them"):
        check_keys(raw, read=["width"])


def test_a_field_that_is_added_at_its_default_changes_no_hash() -> None:
    # What circuits of gpt2-mini's shape are saved with.
    assert tiny.GPT2.hash().startswith("2:") and len(tiny.GPT2.hash()) == 18
    spelt = dataclasses.replace(tiny.GPT2, parallel=False, norm_after=False)
    assert spelt.hash() == tiny.GPT2.hash()
    assert dataclasses.replace(tiny.GPT2, parallel=True).hash() != tiny.GPT2.hash()


def test_two_places_that_disagree_are_both_named() -> None:
    raw = {**LLAMA_HUB, "rope_parameters": {"rope_type": "default", "rope_theta": 500000}}
    with pytest.raises(mg.MgnpError, match="rope_theta' = 500000 .* = 100000, .* 500000"):
        llama.read_config(raw)


def test_gpt2_small_of_the_hub_is_read() -> None:
    config = gpt2.read_config(GPT2_HUB)
    assert (config.layers, config.heads, config.width, config.mlp_width) == (12, 12, 768, 3072)
    assert config.tied and config.context == 1024 and config.norm_eps == 1e-5


def test_smollm2_of_the_hub_is_read() -> None:
    config = llama.read_config(LLAMA_HUB)
    assert (config.layers, config.heads, config.kv_heads, config.head_width) == (30, 9, 3, 64)
    assert config.rope_theta == 100_000.0 and config.tied


def test_rope_parameters_of_transformers_5_are_read() -> None:
    raw = {k: v for k, v in LLAMA_HUB.items() if not k.startswith("rope_")}
    raw["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    assert llama.read_config(raw).rope_theta == 5e5


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (GPT2_HUB, "scale_attn_by_inverse_layer_idx", True),
        (GPT2_HUB, "scale_attn_weights", False),
        (GPT2_HUB, "reorder_and_upcast_attn", True),
        (GPT2_HUB, "add_cross_attention", True),
        (GPT2_HUB, "activation_function", "swiglu"),
        (GPT2_HUB, "quantization_config", {"bits": 4}),
        (LLAMA_HUB, "rope_scaling", {"factor": 8.0}),
        (LLAMA_HUB, "rope_parameters", {"rope_type": "longrope", "factor": 8.0}),
        (LLAMA_HUB, "rope_scaling", {"rope_type": "linear", "factor": 8.0, "ntk": 2}),
        (LLAMA_HUB, "hidden_act", "relu2"),
        (QWEN2_HUB, "layer_types", ["sliding_attention"] * 24),
        (QWEN2_HUB, "layer_types", ["chunked_attention"] * 24),
    ],
)
def test_what_the_code_does_not_honour_is_refused_by_name(
    base: dict[str, Any], key: str, value: Any
) -> None:
    with pytest.raises(mg.MgnpError, match=key):
        family_named(base["model_type"]).read_config({**base, key: value})


@pytest.mark.parametrize("base", [GPT2_HUB, LLAMA_HUB], ids=["gpt2", "llama"])
def test_a_missing_key_is_named(base: dict[str, Any]) -> None:
    raw = {k: v for k, v in base.items() if k != "vocab_size"}
    with pytest.raises(mg.MgnpError, match="lacks 'vocab_size'"):
        family_named(base["model_type"]).read_config(raw)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        mg.MgnpError, match="model_type 'mamba'; supported are .*gpt2, .*llama, .*qwen2"
    ):
        family_named("mamba")


@pytest.mark.parametrize("config", tiny.FAMILIES.values(), ids=tiny.FAMILIES)
def test_a_written_config_is_read_back(config: mg.ModelConfig) -> None:
    assert config.family.read_config(config.family.write_config(config)) == config


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(mg.MgnpError, match="9 query heads cannot share 2"):
        llama.read_config({**LLAMA_HUB, "num_key_value_heads": 2})
    with pytest.raises(mg.MgnpError, match="n_embd 770 is not a multiple of n_head 12"):
        gpt2.read_config({**GPT2_HUB, "n_embd": 770})


def test_hash_tells_configs_apart() -> None:
    other = dataclasses.replace(tiny.GPT2, norm_eps=1e-6)
    assert tiny.GPT2.hash() == dataclasses.replace(tiny.GPT2).hash() != other.hash()
