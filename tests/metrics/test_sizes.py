"""Sizes of circuits against the paper's own counts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.models.families import gpt2, llama
from tests import tiny
from tests.masks.test_hierarchy import GPT2_SMALL

SMOLLM2 = llama.read_config(
    {
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "tie_word_embeddings": True,
    }
)

# Tables 4 to 6 of the paper: heads, attention neurons, MLP hidden, MLP output by layer.
IOI = (
    [11, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, 2],
    [357, 0, 0, 0, 0, 0, 0, 0, 0, 56, 385, 109],
    [2455, 1873, 1934, 2033, 1997, 2040, 1971, 2049, 2027, 1987, 2050, 2148],
    [751, 691, 660, 648, 656, 656, 653, 648, 626, 605, 637, 656],
)
GP = (
    [4, 0, 0, 0, 11, 0, 0, 0, 0, 7, 11, 4],
    [177, 0, 0, 0, 612, 0, 0, 0, 0, 290, 474, 149],
    [1104, 0, 0, 0, 0, 0, 0, 149, 0, 0, 0, 80],
    [669, 0, 0, 0, 0, 0, 0, 407, 0, 0, 0, 335],
)
GT = (
    [3, 0, 0, 0, 0, 0, 4, 3, 7, 11, 0, 0],
    [167, 0, 0, 0, 0, 0, 251, 181, 427, 675, 0, 0],
    [1184, 1265, 0, 0, 0, 0, 0, 0, 664, 707, 750, 0],
    [743, 708, 0, 0, 0, 0, 0, 0, 675, 704, 690, 0],
)


def masks_with(heads: list[int], neurons: list[int], hidden: list[int], output: list[int]) -> dict:
    """Masks with the given counts in each layer; which ones does not change any size."""
    masks = {name: np.zeros(m.shape, bool) for name, m in mg.full_masks(GPT2_SMALL).items()}
    for layer in range(12):
        masks["attention_blocks"][layer] = heads[layer] > 0
        masks["mlp_blocks"][layer] = hidden[layer] > 0
        masks["attention_heads"][layer, : heads[layer]] = True
        # Each kept head needs a neuron; the rest go wherever there is room.
        chosen = np.zeros((12, 64), bool)
        chosen[: heads[layer], 0] = True
        room = [(h, e) for h in range(heads[layer]) for e in range(1, 64)]
        for h, e in room[: neurons[layer] - heads[layer]]:
            chosen[h, e] = True
        masks["attention_neurons"][layer] = chosen
        masks["mlp_hidden"][layer, : hidden[layer]] = True
        masks["mlp_output"][layer, : output[layer]] = True
    return masks


@pytest.mark.parametrize(
    ("tables", "edges", "heads", "neurons", "hidden"),
    [(IOI, 1028, 21, 907, 24_564), (GP, 1948, 37, 1702, 1333), (GT, 1265, 28, 1701, 4570)],
    ids=["ioi", "gp", "gt"],
)
def test_the_papers_circuits(
    tables: tuple, edges: int, heads: int, neurons: int, hidden: int
) -> None:
    sizes = mg.circuit_sizes(GPT2_SMALL, masks_with(*tables))
    assert sizes["edges"]["active"] == edges
    assert sizes["edges"]["total"] == 32_491
    assert sizes["sizes"]["attention_heads"]["active"] == heads
    assert sizes["sizes"]["attention_neurons"]["active"] == neurons
    assert sizes["sizes"]["mlp_hidden"]["active"] == hidden
    assert sizes["sizes"]["attention_heads"]["sparsity"] == pytest.approx(100 * (1 - heads / 144))


def test_edges_with_grouped_queries() -> None:
    assert mg.circuit_sizes(SMOLLM2, mg.full_masks(SMOLLM2))["edges"]["total"] == 70_651
    # One head of layer 2 alone: it reads q, k, v from the input and writes to the output.
    masks = jax.tree.map(np.array, mg.full_masks(SMOLLM2, 0.0))
    masks["attention_blocks"][1] = 1
    masks["attention_heads"][1, 4] = 1
    masks["attention_neurons"][1, 4, :7] = 1
    sizes = mg.circuit_sizes(SMOLLM2, masks)
    assert sizes["edges"]["active"] == 3 + 2
    # A second query head of its group shares the key and value; one of another does not.
    for other, extra in ((3, 1 + 1), (8, 3 + 1)):
        more = jax.tree.map(np.copy, masks)
        more["attention_heads"][1, other] = 1
        more["attention_neurons"][1, other, 0] = 1
        assert mg.circuit_sizes(SMOLLM2, more)["edges"]["active"] == 5 + extra


@pytest.mark.parametrize("config", [tiny.GPT2, tiny.LLAMA], ids=["gpt2", "llama"])
def test_parameters_of_the_whole_model_are_its_parameters(config: mg.ModelConfig) -> None:
    actual = sum(leaf.size for leaf in jax.tree.leaves(tiny.lively_params(config)))
    sizes = mg.circuit_sizes(config, mg.full_masks(config))["parameters"]
    assert (sizes["total"], sizes["active"]) == (actual, actual)
    assert (sizes["compression_ratio"], sizes["prunable_kept"]) == (1.0, 1.0)
    nothing = mg.circuit_sizes(config, mg.full_masks(config, 0.0))["parameters"]
    assert nothing["prunable_kept"] == 0.0 and nothing["active"] > 0


def test_known_parameter_totals() -> None:
    def total(config: mg.ModelConfig) -> int:
        return mg.circuit_sizes(config, mg.full_masks(config))["parameters"]["total"]

    assert total(GPT2_SMALL) == 124_439_808
    assert total(SMOLLM2) == 134_515_008


def test_parameters_by_hand() -> None:
    config = gpt2.read_config(
        {"vocab_size": 5, "n_positions": 4, "n_embd": 6, "n_layer": 1, "n_head": 2, "n_inner": 8}
    )
    masks = jax.tree.map(np.array, mg.full_masks(config, 1.0))
    masks["attention_heads"][0, 1] = 0
    masks["attention_neurons"][0, 0, 2] = 0
    masks["mlp_hidden"][0, 3:] = 0
    masks["mlp_output"][0, 5] = 0
    attention = 2 * 3 * (6 + 1) + 2 * (6 + 1) + 2 * 6 + 6 + 12  # q and k, v, rows, bias, norm
    mlp = 3 * (6 + 1) + 3 * 5 + 5 + 12  # in, out, biases, norm
    outside = 5 * 6 + 4 * 6 + 12
    sizes = mg.circuit_sizes(config, masks)["parameters"]
    assert sizes["active"] == attention + mlp + outside


def test_an_empty_circuit_has_the_edge_from_input_to_output() -> None:
    sizes = mg.circuit_sizes(tiny.GPT2, mg.full_masks(tiny.GPT2, 0.0))
    assert sizes["edges"]["active"] == 1
    assert all(size["active"] == 0 for size in sizes["sizes"].values())
    assert sizes["parameters"]["compression_ratio"] > 1
