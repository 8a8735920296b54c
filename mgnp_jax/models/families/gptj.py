"""GPT-J: attention and MLP read the same residual stream by one norm; parts of heads are turned.

Reference: the architecture of Hugging Face's `GPTJForCausalLM`, whose logits the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.config_keys import check_keys
from mgnp_jax.models.family import Family, Source, dense, norm
from mgnp_jax.models.parts import ACTIVATIONS
from mgnp_jax.models.values import number, one_of, size
from mgnp_jax.types import MgnpError


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads a GPT-J config.json.

    Args:
      raw: the parsed file.

    Returns:
      The config.

    Raises:
      MgnpError: for a key that is missing, not of its type and range, or asks for what is not
        implemented.
    """
    check_keys(
        raw,
        read="""vocab_size n_positions n_embd n_layer n_head n_inner rotary_dim
        activation_function layer_norm_epsilon""".split(),
        # Dropout acts in training only.
        inert=("attn_pdrop", "embd_pdrop", "resid_pdrop"),
        # A tied unembedding has a bias all the same, which no published model has.
        required={"tie_word_embeddings": (False,)},
    )
    width, heads = size(raw, "n_embd"), size(raw, "n_head")
    if width % heads:
        raise MgnpError(f"config.json: n_embd {width} is not a multiple of n_head {heads}")
    turned = size(raw, "rotary_dim", 64)
    if raw.get("rotary_dim", 64) is None or turned > width // heads:
        raise MgnpError(
            f"config.json has 'rotary_dim' = {raw.get('rotary_dim', 64)}, wanted at most the width "
            f"of a head, {width // heads}"
        )
    return ModelConfig(
        family=GPTJ,
        vocab_size=size(raw, "vocab_size"),
        context=size(raw, "n_positions"),
        layers=size(raw, "n_layer"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        mlp_width=size(raw, "n_inner", 4 * width),
        activation=one_of(raw, "activation_function", ACTIVATIONS, "gelu_new"),
        norm="layer",
        norm_eps=number(raw, "layer_norm_epsilon", 1e-5, least=0, largest=1),
        rope_theta=10_000.0,
        rope_width=turned,
        parallel=True,
        shared_norm=True,
        mlp_bias=True,
        head_bias=True,
    )


def write_config(model_config: ModelConfig) -> dict[str, Any]:
    """The config.json from which `read_config` reads this config."""
    c = model_config
    return {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "vocab_size": c.vocab_size,
        "n_positions": c.context,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_width,
        "rotary_dim": c.turned,
        "activation_function": c.activation,
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def sources(model_config: ModelConfig) -> dict[str, Source]:
    """Where each leaf stands in a checkpoint."""
    c = model_config
    table = {
        "embeddings/token/embedding": Source("transformer.wte.weight"),
        **norm("embeddings/norm", "transformer.ln_f", bias=True),
    }
    table |= dense("embeddings/head", "lm_head", bias=True)
    layer = "transformer.h.{layer}."
    table |= norm("blocks/attention_norm", f"{layer}ln_1", bias=True)
    # GPT-J turns neighbours; here those that are half of what is turned apart. Queries and keys
    # in another order have the same products.
    order = np.arange(c.head_width)
    order[: c.turned] = np.concatenate([order[: c.turned : 2], order[1 : c.turned : 2]])
    rows = (np.arange(c.heads)[:, None] * c.head_width + order[None]).ravel()
    for name in "qk":
        theirs = f"{layer}attn.{name}_proj"
        table |= dense(f"blocks/attention/{name}", theirs, bias=False, rows=rows, of=len(rows))
    table |= dense("blocks/attention/v", f"{layer}attn.v_proj", bias=False)
    table |= dense("blocks/attention/o", f"{layer}attn.out_proj", bias=False)
    for ours, theirs in (("up", "fc_in"), ("down", "fc_out")):
        table |= dense(f"blocks/mlp/{ours}", f"{layer}mlp.{theirs}", bias=True)
    return table


GPTJ = Family(
    name="gptj",
    read_config=read_config,
    write_config=write_config,
    sources=sources,
    # Buffers of the causal mask that old checkpoints carry.
    ignored=("attn.bias", "attn.masked_bias", "attn.embed_positions"),
)
