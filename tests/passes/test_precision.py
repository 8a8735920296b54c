"""Products in full float32; weights in 16 bits, and what a gradient keeps of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.edges import full_edges
from mgnp_jax.methods.magnitude import magnitudes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes import ablation, layer_steps
from mgnp_jax.passes.budget import bytes_beside, bytes_of
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.counting import inner_jaxprs
from mgnp_jax.passes.precision import as_numbers, in_precision
from mgnp_jax.types import Masks, Params
from tests import tiny

CONFIG = tiny.LLAMA


def half_open(level: str) -> Masks:
    full = full_edges(CONFIG) if level == "edges" else mg.full_masks(CONFIG, 1.0)
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5, jnp.float32), full)


def gradient(config: ModelConfig, params: Params, masks: Masks) -> Any:
    """Of masks, of a batch that runs in parts."""
    batch = tiny.batch(config, rows=10)
    runs = plain_runs(config, params, batch)
    parts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), runs)

    def total(masks: Masks) -> jax.Array:
        def part(runs: Any) -> jax.Array:
            return circuit_logits(config, params, masks, runs).astype(jnp.float32).sum()

        # Of one part, and of several as methods have them.
        return part(runs) + jax.lax.map(jax.checkpoint(part), parts).sum()

    return jax.grad(total)(masks)


def results(jaxpr: Any) -> Iterator[Any]:
    """What every equation returns, however deep."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in inner_jaxprs(equation.params):
            yield from results(inner)


def precisions(jaxpr: Any) -> Iterator[Any]:
    """Of every product, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in inner_jaxprs(equation.params):
            yield from precisions(inner)


def constants(params: Params) -> Any:
    return ablation._written(CONFIG, params, ablation._zeros(CONFIG))


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(constants, id="constants"),
        pytest.param(functools.partial(magnitudes, CONFIG), id="magnitudes"),
        *(
            pytest.param(lambda params, of=of: gradient(CONFIG, params, half_open(of)), id=of)
            for of in ("nodes", "edges")
        ),
    ],
)
def test_figures_come_from_exact_products(figures: Any) -> None:
    jaxpr = jax.make_jaxpr(figures)(tiny.model("llama").params)
    assert set(precisions(jaxpr.jaxpr)) == {(jax.lax.Precision.HIGHEST,) * 2}


@pytest.mark.parametrize("level", ["nodes", "edges"])
def test_a_gradient_keeps_no_numbers_of_all_layers(level: str) -> None:
    config, params = in_precision(CONFIG, tiny.model("llama").params, "bfloat16")
    sizes = {leaf.size for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim > 2}
    jaxpr = jax.make_jaxpr(lambda masks: gradient(config, params, masks))(half_open(level))
    found = [each for each in results(jaxpr.jaxpr) if each.dtype == jnp.bfloat16]
    assert found
    stacked = [each for each in found if each.ndim > 2 and each.shape[0] == CONFIG.layers]
    assert not [each for each in stacked if each.size in sizes]


@pytest.mark.parametrize("level", ["nodes", pytest.param("edges", marks=pytest.mark.full)])
def test_numbers_made_again_give_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    # In 16 bits, with which passes compute in float32, so that they can be compared closely.
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.model("llama").params)
    masks = half_open(level)
    found = gradient(CONFIG, params, masks)
    monkeypatch.setattr(
        layer_steps, "on_numbers", lambda config, function, own: function(as_numbers(config, own))
    )
    jax.clear_caches()
    wanted = gradient(CONFIG, params, masks)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 0.1
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["nodes", pytest.param("edges", marks=pytest.mark.full)])
def test_accelerators_run_a_checkpoints_own_16_bits(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    own = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.model("llama").params)
    with monkeypatch.context() as patched:
        patched.setattr(jax, "default_backend", lambda: "cpu")
        config, bits = in_precision(CONFIG, own, "bfloat16")
        patched.setattr(jax, "default_backend", lambda: "gpu")
        acting, stored = in_precision(CONFIG, own, "bfloat16")
    assert bytes_beside(own, bits) == bytes_of(own)
    assert acting == config and acting.hash() == CONFIG.hash()
    # The same arrays, so that they do not lie there twice.
    assert bytes_beside(own, stored) == 0
    masks = half_open(level)
    found, wanted = gradient(acting, stored, masks), gradient(config, bits, masks)
    chex.assert_trees_all_close(found, wanted, rtol=0.02, atol=0.02)
    exact = gradient(CONFIG, own, masks)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*map(jax.tree.leaves, (found, exact))))
