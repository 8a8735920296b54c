"""Values of a config.json that are not what they should be: one line, with key, wanted and got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.families import family_named
from tests import tiny

BASES = {name: config.family.write_config(config) for name, config in tiny.CONFIGS.items()}
DEEP = json.loads("[" * 300 + "]" * 300)
SIZE, NUMBER, FLAG = "an integer from 1 to", "a number from", "true or false"


@pytest.mark.parametrize(
    ("family", "key", "value", "wanted"),
    [
        ("gpt2", "n_layer", "3", SIZE),
        ("gpt2", "n_layer", 3.0, SIZE),
        ("gpt2", "n_layer", True, SIZE),
        ("gpt2", "vocab_size", None, SIZE),
        ("gpt2", "n_head", 0, SIZE),
        ("gpt2", "n_inner", 0, SIZE),
        ("gpt2", "n_positions", -1, SIZE),
        ("gpt2", "n_embd", 10**30, SIZE),
        ("gpt2", "layer_norm_epsilon", "1e-5", NUMBER),
        ("gpt2", "layer_norm_epsilon", None, NUMBER),
        ("gpt2", "layer_norm_epsilon", float("nan"), NUMBER),
        ("gpt2", "layer_norm_epsilon", float("inf"), NUMBER),
        ("gpt2", "layer_norm_epsilon", -1e-5, NUMBER),
        ("gpt2", "layer_norm_epsilon", 10**400, NUMBER),
        ("gpt2", "tie_word_embeddings", "false", FLAG),
        ("gpt2", "tie_word_embeddings", 0, FLAG),
        ("gpt2", "activation_function", ["relu"], "one of gelu, "),
        ("gpt2", "activation_function", None, "one of gelu, "),
        ("llama", "head_dim", 7, "must be even, got 7"),
        ("llama", "head_dim", 0, SIZE),
        ("llama", "num_key_value_heads", 0, SIZE),
        ("llama", "num_key_value_heads", [2], SIZE),
        ("llama", "rope_theta", "1e4", NUMBER),
        ("llama", "rope_theta", None, NUMBER),
        ("llama", "rope_theta", 0, NUMBER),
        ("llama", "rope_parameters", "default", "an object or null"),
        ("llama", "rope_scaling", "dynamic", "an object or null"),
        ("llama", "rope_parameters", {"rope_theta": None}, NUMBER),
        ("llama", "rope_scaling", {"type": ["linear"]}, "wanted a rope_type of default"),
        ("llama", "rope_scaling", {"factor": 8.0}, "wanted a rope_type of default"),
        ("llama", "rms_norm_eps", {"value": 1e-6}, NUMBER),
        ("llama", "hidden_size", DEEP, SIZE),
        ("llama", "attention_bias", "x" * 10**6, "wanted true or false"),
        ("qwen2", "num_hidden_layers", 10**12, SIZE),
        ("qwen2", "num_hidden_layers", "many", SIZE),
        ("qwen2", "layer_types", "full_attention", "full_attention or sliding_attention for each"),
        ("qwen2", "layer_types", ["full_attention"] * 2, "sliding_attention for each of the 3"),
        ("qwen2", "use_sliding_window", "\ud800", "wanted true or false"),
    ],
)
def test_a_value_of_another_kind_is_named(family: str, key: str, value: Any, wanted: str) -> None:
    if key == "rope_parameters":
        raw = {k: v for k, v in BASES[family].items() if k != "rope_theta"}
    else:
        raw = BASES[family]
    with pytest.raises(mg.MgnpError) as error:
        family_named(family).read_config({**raw, key: value})
    said = str(error.value)
    assert (key if key != "rope_parameters" else "rope_") in said and wanted in said
    assert "\n" not in said and len(said) < 700
    said.encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 48}, "'hidden_size' = 48, which transformers takes for 'n_embd', and"),
        ({"num_hidden_layers": [1]}, "takes for 'n_layer', and 'n_layer' = 3"),
    ],
)
def test_other_names_of_a_key_must_agree_with_it(change: dict[str, Any], message: str) -> None:
    # GPT2Config's attribute_map: transformers would overrule n_embd with hidden_size.
    with pytest.raises(mg.MgnpError, match=message):
        family_named("gpt2").read_config({**BASES["gpt2"], **change})
    same = {"hidden_size": 12, "num_attention_heads": 4, "n_ctx": 5}
    assert family_named("gpt2").read_config({**BASES["gpt2"], **same}) == tiny.GPT2


def test_qwen2_without_its_key_value_heads_is_refused() -> None:
    # transformers would take 32 of them.
    raw = {k: v for k, v in BASES["qwen2"].items() if k != "num_key_value_heads"}
    with pytest.raises(mg.MgnpError, match="lacks 'num_key_value_heads'"):
        family_named("qwen2").read_config(raw)
    assert family_named("llama").read_config({**raw, "model_type": "llama"}).kv_heads == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not JSON"),
        (b"[1, 2]", "holds list, wanted an object"),
        (b"null", "holds NoneType, wanted an object"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"{}", "lacks 'model_type'; found no key"),
        (b'{"model_type": null}', "has model_type 'None'"),
        (b'{"model_type": [[["gpt2"]]]}', "has model_type .*gpt2.*; supported are"),
        (b'{"model_type": "\\ud800"}', "supported are"),
        (b'{"\\ud800": 1, "model_type": "gpt2"}', "lacks '"),
        (b"\xef\xbb\xbf" + b'{"model_type": "gpt2"}', "lacks 'n_embd'"),
        (b'{"model_type": "gpt2", "auto_map": {"AutoConfig": "code.py"}}', "lacks 'n_embd'"),
    ],
)
def test_a_config_that_is_no_config_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(mg.MgnpError, match=message) as error:
        mg.load_model(tmp_path)
    str(error.value).encode()
    assert "\n" not in str(error.value)
