"""Every field of every config in transformers: read, refused by name, or known to do nothing."""

from __future__ import annotations

from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.config_keys import _declared
from tests import tiny

ANY = "bos_token_id eos_token_id attention_dropout"
# What acts in training alone, in heads of other tasks, or where something else is turned on.
INERT = {
    "gpt2": "attn_pdrop embd_pdrop resid_pdrop summary_type summary_use_proj summary_activation "
    "summary_proj_to_labels summary_first_dropout",
    "gptj": "attn_pdrop embd_pdrop resid_pdrop",
    "gpt_neox": "hidden_dropout classifier_dropout is_decoder",
    "opt": "dropout layerdrop init_std",
    "phi3": "resid_pdrop embd_pdrop original_max_position_embeddings",
    "llama": "pretraining_tp",
    "qwen2": "max_window_layers use_sliding_window sliding_window",
    "qwen3": "max_window_layers",
    "smollm3": "no_rope_layer_interval use_sliding_window sliding_window",
}


def changed(value: Any) -> Any:
    """A value that a config has for something else than this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value * 3 + 3)
    return {"an": "object"} if isinstance(value, str | list) or value is None else None


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_field_is_read_or_refused_by_name(family: str) -> None:
    base = tiny.FAMILIES[family]
    raw = base.family.write_config(base)
    # Written down, it would be the first to differ from another width.
    raw.pop("word_embed_proj_dim", None)
    declared, _ = _declared(family)
    assert len(declared) > 10
    quiet = []
    for key, default in declared.items():
        value = changed(raw.get(key, default))
        try:
            if base.family.read_config({**raw, key: value}) == base:
                quiet.append(key)
        except mg.MgnpError as error:
            # Of a number of layers, that lists of them have another length.
            assert key in str(error) or ("layers" in key and "layers" in str(error)), (key, error)
    assert set(quiet) <= {*INERT.get(family, "").split(), *ANY.split()}, quiet
