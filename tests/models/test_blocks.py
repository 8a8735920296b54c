"""What no built-in family has yet, but the shared parts can: against torch models that have it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.models.block import node_costs
from mgnp_jax.models.weights import init_params
from tests import tiny

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
TOKENS = (np.arange(24).reshape(2, 12) * 7) % 61


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: leaf.detach().numpy() for name, leaf in model.state_dict().items()}


def stacked(layers: list[dict[str, Any]]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)


def check(model: Any, model_config: mg.ModelConfig, params: Any) -> None:
    import torch

    with torch.no_grad():
        wanted = model.eval()(torch.tensor(TOKENS)).logits.numpy()
    assert wanted.std() > 0.3
    got = mg.forward(model_config, params, TOKENS)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_a_parallel_residual_is_that_of_gpt_neox() -> None:
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
    config = transformers.GPTNeoXConfig(
        **SHAPE, use_parallel_residual=True, hidden_act="gelu", rope_parameters=rope
    )
    model = transformers.GPTNeoXForCausalLM(config)
    w = weights_of(model)

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": w[f"{name}.weight"].T, "bias": w[f"{name}.bias"]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": w[f"{name}.weight"], "bias": w[f"{name}.bias"]}

    def layer(i: int) -> dict[str, Any]:
        own = f"gpt_neox.layers.{i}"
        # Each head's query, key and value lie side by side.
        kernel = w[f"{own}.attention.query_key_value.weight"].reshape(4, 3, 6, 24)
        bias = w[f"{own}.attention.query_key_value.bias"].reshape(4, 3, 6)
        attention: dict[str, Any] = {
            name: {"kernel": kernel[:, j].reshape(24, 24).T, "bias": bias[:, j].ravel()}
            for j, name in enumerate("qkv")
        }
        mlp = {"up": f"{own}.mlp.dense_h_to_4h", "down": f"{own}.mlp.dense_4h_to_h"}
        return {
            "attention": attention | {"o": dense(f"{own}.attention.dense")},
            "mlp": {name: dense(theirs) for name, theirs in mlp.items()},
            "attention_norm": norm(f"{own}.input_layernorm"),
            "mlp_norm": norm(f"{own}.post_attention_layernorm"),
        }

    embeddings = {
        "token": {"embedding": w["gpt_neox.embed_in.weight"]},
        "norm": norm("gpt_neox.final_layer_norm"),
        "head": {"kernel": model.get_output_embeddings().weight.detach().numpy().T},
    }
    ours = dataclasses.replace(
        tiny.GPT2,
        **{"vocab_size": 61, "context": 32, "layers": 2, "width": 24, "head_width": 6},
        **{"mlp_width": 40, "activation": "gelu", "rope_theta": 10_000.0, "fused_qkv": False},
        **{"parallel": True, "tied": False},
    )
    check(model, ours, {"embeddings": embeddings, "blocks": stacked([layer(i) for i in (0, 1)])})


def test_norms_before_and_after_are_those_of_gemma_2() -> None:
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        **SHAPE,
        num_key_value_heads=2,
        head_dim=6,
        query_pre_attn_scalar=6,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        sliding_window=64,
    )
    config._attn_implementation = "eager"
    model = transformers.Gemma2ForCausalLM(config)
    for name, leaf in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(leaf, std=0.2)
    w = weights_of(model)

    def norm(name: str) -> dict[str, np.ndarray]:
        # Stored as what is added to one.
        return {"scale": 1 + w[f"{name}.weight"]}

    def layer(i: int) -> dict[str, Any]:
        own = f"model.layers.{i}"

        def dense(part: str, names: str | tuple[str, ...]) -> dict[str, Any]:
            return {n: {"kernel": w[f"{own}.{part}.{n}_proj.weight"].T} for n in names}

        return {
            "attention": dense("self_attn", "qkvo"),
            "mlp": dense("mlp", ("gate", "up", "down")),
            "attention_norm": norm(f"{own}.input_layernorm"),
            "attention_post_norm": norm(f"{own}.post_attention_layernorm"),
            "mlp_norm": norm(f"{own}.pre_feedforward_layernorm"),
            "mlp_post_norm": norm(f"{own}.post_feedforward_layernorm"),
        }

    token = w["model.embed_tokens.weight"]
    embeddings = {
        # Scaled where it is read, not where it is unembedded.
        "token": {"embedding": token * 24**0.5},
        "norm": norm("model.norm"),
        "head": {"kernel": token.T},
    }
    ours = dataclasses.replace(
        tiny.POST_NORM,
        **{"vocab_size": 61, "context": 32, "layers": 2, "width": 24, "head_width": 6},
        **{"mlp_width": 40, "activation": "gelu_pytorch_tanh", "norm_eps": config.rms_norm_eps},
    )
    check(model, ours, {"embeddings": embeddings, "blocks": stacked([layer(i) for i in (0, 1)])})


def test_costs_of_all_nodes_add_up_to_the_parameters(any_block: mg.Model) -> None:
    c = any_block.config
    sizes = mg.circuit_sizes(c, mg.full_masks(c))["parameters"]
    assert sizes["total"] == sum(leaf.size for leaf in jax.tree.leaves(any_block.params))
    empty = mg.circuit_sizes(c, mg.full_masks(c, 0.0))["parameters"]
    assert empty["active"] == node_costs(c).outside


@pytest.mark.parametrize("norm_before", [False, True])
def test_a_block_may_have_its_norms_after_alone(norm_before: bool) -> None:
    c = dataclasses.replace(tiny.POST_NORM, norm_before=norm_before)
    params = init_params(jax.random.key(0), c)
    names = set(params["blocks"])
    assert {"attention_post_norm", "mlp_post_norm"} <= names
    assert ("attention_norm" in names) == norm_before
    batch = tiny.batch(c)
    ones = mg.two_stream_forward(c, params, mg.full_masks(c), batch.clean, batch.corrupted)
    np.testing.assert_allclose(ones, mg.forward(c, params, batch.clean), atol=1e-4)


def test_an_mlp_beside_attention_does_not_read_its_heads() -> None:
    edges = [
        mg.circuit_sizes(c, mg.full_masks(c))["edges"]["total"] for c in (tiny.GPT2, tiny.PARALLEL)
    ]
    # Three layers of four heads.
    assert edges[0] - edges[1] == 3 * 4
