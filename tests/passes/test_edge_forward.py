"""The edge pass: equal to loops over readers, to the node pass where edges follow, its gradient."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import edges_between, without_dangling
from mgnp_jax.masks.edges import (
    HEAD_EDGES,
    LOGITS_EDGES,
    MLP_EDGES,
    existing,
    first_writer,
    full_edges,
)
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.edge_forward import edge_logits, edge_logits_after, whole_run
from mgnp_jax.passes.embeddings import embed, unembed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.precision import exact
from tests import tiny
from tests.masks.test_edges import some_nodes

MODELS = tiny.each_family("gpt2", "llama", "gpt_neox", "qwen3", "gemma2", "gemma3_text", "olmo2")


@functools.cache
def prompts(name: str) -> tuple[mg.Model, Any, Any]:
    """A model, its prompts, and their plain passes."""
    model = tiny.model(name)
    batch = tiny.batch(model.config, shared=3)
    return model, batch, plain_runs(model.config, model.params, batch)


def gates(model_config: mg.ModelConfig, seed: int = 0) -> mg.Masks:
    rng = np.random.default_rng(seed)
    drawn = {n: e * rng.random(e.shape) for n, e in existing(model_config).items()}
    return jax.device_put({n: each.astype(np.float32) for n, each in drawn.items()})


@exact
def slow_logits(model_config: mg.ModelConfig, params: mg.Params, masks: mg.Masks, runs: Any) -> Any:
    """The same by loops over layers and readers, on the whole model's own steps."""
    c, layout, (values,) = model_config, runs.layout, runs.corrupted.values
    embedded, layers = runs.corrupted.embedding, stacked_layers(c, params)
    # By layer: what heads wrote before the norm, if one follows, less the corrupted run; the MLP.
    heads: list[Any] = []
    mlps: list[Any] = []

    def of(index: int, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    def attention(index: int, gates: Any) -> Any:
        layer, other = Layer(c, of(index, layers)), of(index, values)
        parts = sum(gate[None, None] * each for gate, each in zip(gates, heads[index], strict=True))
        return layer.step("attn_write", layer.step("attn_out", other.attn_z) + parts)

    def read(gates: Any) -> Any:
        x = embedded + gates[0][None, None] * (
            embed(c, params, runs.clean, layout.positions) - embedded
        )
        for index, mlp in enumerate(mlps):
            first = first_writer(c, index)
            x += attention(index, gates[first : first + c.heads])
            x += of(index, values).mlp_out + gates[first + c.heads][None, None] * mlp
        return x

    for index in range(c.layers):
        layer, other, first = Layer(c, of(index, layers)), of(index, values), first_writer(c, index)
        parts = []
        for place, name in enumerate(HEAD_EDGES):
            each = [layer.qkv(layout, read(gate))[place] for gate in masks[name][index]]
            parts.append(jnp.stack([own[:, n] for n, own in enumerate(each)], axis=1))
        q, k, v = parts
        z = layer.attend(layout, q, k, v, of(index, runs.corrupted.prefix[0]))
        alone = [
            jnp.zeros_like(z).at[:, head].set(z[:, head] - other.attn_z[:, head])
            for head in range(c.heads)
        ]
        x, gates = read(masks[MLP_EDGES][index]), masks[MLP_EDGES][index, first : first + c.heads]
        heads.append([layer.linear("attn_out", each) for each in alone])
        if not c.parallel:
            x += attention(index, gates)
        mlp = layer.step("mlp_write", layer.step("mlp_out", layer.step("mlp_hidden", x)))
        mlps.append(mlp - other.mlp_out)
    return unembed(c, params, read(masks[LOGITS_EDGES])[layout.answers])


@pytest.mark.parametrize("name", MODELS)
def test_ones_are_the_model_and_zeros_the_corrupted_run(name: str) -> None:
    model, batch, runs = prompts(name)
    run = jax.jit(functools.partial(edge_logits, model.config, model.params))
    base = runs.base_logits
    scale = np.abs(base).max()
    found = run(full_edges(model.config), runs)
    np.testing.assert_allclose(found / scale, base / scale, atol=1e-5)
    swapped = batch.replace(clean=batch.corrupted, corrupted=batch.clean)
    corrupted = plain_runs(model.config, model.params, swapped).base_logits
    found = run(full_edges(model.config, 0.0), runs)
    np.testing.assert_allclose(found / scale, corrupted / scale, atol=1e-5)
    assert np.abs(corrupted - base).max() > 0.1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_values_and_gradients_are_those_of_loops(name: str) -> None:
    model, _, runs = prompts(name)
    masks = gates(model.config)
    weights = np.random.default_rng(1).standard_normal(runs.base_logits.shape)

    def figure(logits_of: Any, masks: mg.Masks) -> jax.Array:
        return (logits_of(model.config, model.params, masks, runs) * weights).sum()

    for found, expected in zip(
        *(
            jax.tree.leaves(jax.value_and_grad(functools.partial(figure, of))(masks))
            for of in (edge_logits, slow_logits)
        ),
        strict=True,
    ):
        scale = np.abs(np.asarray(expected)).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_edges_between_nodes_do_what_the_nodes_do(name: str) -> None:
    model, _, runs = prompts(name)
    nodes = some_nodes(model.config)
    edges = edges_between(model.config, nodes)
    found = edge_logits(model.config, model.params, edges, runs)
    expected = masked_logits(model.config, model.params, nodes, runs)
    tiny.assert_near(found, expected)
    assert np.abs(found - runs.base_logits).max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_layers_into_which_all_edges_are_kept_need_not_run_again(name: str) -> None:
    model, _, runs = prompts(name)
    c, whole = model.config, whole_run(model.config, model.params, runs)
    later = jax.jit(functools.partial(edge_logits_after, c, model.params))
    full, drawn = full_edges(c), gates(c)
    for first in range(c.layers):
        masks = {
            n: drawn[n] if n == LOGITS_EDGES else full[n].at[first:].set(drawn[n][first:])
            for n in full
        }
        found = later(masks, runs, whole, first)
        expected = edge_logits(c, model.params, masks, runs)
        tiny.assert_near(found, expected)
        # And those before are indeed not looked at.
        other = full | {n: masks[n].at[:first].set(0) for n in full if n != LOGITS_EDGES}
        other |= {LOGITS_EDGES: masks[LOGITS_EDGES]}
        np.testing.assert_array_equal(found, later(other, runs, whole, first))


def test_dangling_edges_change_nothing() -> None:
    model, _, runs = prompts("llama")
    rng = np.random.default_rng(2)
    kept = {n: e & (rng.random(e.shape) < 0.15) for n, e in existing(model.config).items()}
    clean = without_dangling(kept)
    assert any((np.asarray(clean[n]) != kept[n]).any() for n in kept)
    before, after = (
        edge_logits(model.config, model.params, m, runs) for m in (jax.device_put(kept), clean)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_gates_of_edges_that_are_not_there_do_nothing() -> None:
    model, _, runs = prompts("gpt2")
    masks = gates(model.config)
    there = existing(model.config)
    more = masks | {n: jnp.where(there[n], masks[n], 0.7) for n in HEAD_EDGES}
    assert any((more[n] != masks[n]).any() for n in HEAD_EDGES)
    before, after = (edge_logits(model.config, model.params, m, runs) for m in (masks, more))
    np.testing.assert_array_equal(before, after)


def test_layers_are_compiled_once() -> None:
    model, _, runs = prompts("gpt2")
    run = functools.partial(edge_logits, model.config, model.params)
    text = jax.jit(run).lower(gates(model.config), runs).as_text()
    assert text.count("stablehlo.while") == 1
