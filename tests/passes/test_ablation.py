"""Pruned nodes given zeros or means instead of the corrupted run's values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.metrics.evaluate import evaluate_all
from mgnp_jax.passes.ablation import ablation_values
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.layer_steps import Layer
from mgnp_jax.passes.precision import exact, in_precision
from tests import tiny

CONFIG = mg.DiscoverConfig(steps=4, batch_size=4, validate_every=4, learning_rate=0.3)


def logits(model: mg.Model, batch: mg.Batch, masks: mg.Masks, ablation: str) -> np.ndarray:
    constants = ablation_values(model.config, model.params, batch, ablation, 4)
    streams = plain_runs(model.config, model.params, batch, ablation_values=constants)
    return np.asarray(masked_logits(model.config, model.params, masks, streams))


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_masks_of_one_are_the_base_model(any_block: mg.Model, ablation: str) -> None:
    batch = tiny.data(any_block.config).train
    streams = plain_runs(any_block.config, any_block.params, batch)
    got = logits(any_block, batch, mg.full_masks(any_block.config), ablation)
    tiny.assert_near(got, streams.base_logits)


def test_zeros_leave_the_biases_of_the_output_maps(any_block: mg.Model) -> None:
    batch = tiny.data(any_block.config).train
    blocks = dict(any_block.params["blocks"])
    for part, name in (("attention", "o"), ("mlp", "down")):
        silent = {**blocks[part][name], "kernel": 0 * blocks[part][name]["kernel"]}
        blocks[part] = {**blocks[part], name: silent}
    silent = dataclasses.replace(any_block, params={**any_block.params, "blocks": blocks})
    expected = plain_runs(silent.config, silent.params, batch).base_logits
    got = logits(any_block, batch, mg.full_masks(any_block.config, 0.0), "zero")
    tiny.assert_near(got, expected)


def test_means_are_over_all_tokens_and_agree_between_the_sites(any_block: mg.Model) -> None:
    c, params = any_block.config, any_block.params
    batch = tiny.data(c).train
    constants = ablation_values(c, params, batch, "mean", 4)
    assert constants is not None
    chex.assert_shape(constants["attn_z"], (c.layers, c.heads, c.head_width))
    chex.assert_shape(constants["embedding"], (c.width,))
    streams = plain_runs(c, params, batch, share_prefix=False)
    (values,) = streams.corrupted.values
    tokens = int(np.asarray(batch.attention_mask).sum())
    # Behind a norm the mean of what is written is not what the mean of the heads writes.
    affine = () if c.norm_after else ("attn_out", "mlp_out")
    for name in ("attn_z", "mlp_hidden", *affine):
        expected = np.asarray(getattr(values, name))[:, :tokens].mean(1)
        tiny.assert_near({name: constants[name]}, {name: expected})
    weights = jax.tree.map(lambda leaf: leaf[1], params["blocks"])
    step = exact(Layer(c, weights).step)
    projected = step("attn_out", jnp.asarray(constants["attn_z"][1:2]))
    written = step("attn_write", projected)[0]
    tiny.assert_near(written, constants["attn_out"][1])


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_constants_of_bfloat16_weights_are_nearly_those_of_float32(ablation: str) -> None:
    model = tiny.model("gpt2")
    batch = tiny.data(model.config).train
    as_it_is, halved = (
        in_precision(model.config, model.params, dtype) for dtype in ("float32", "bfloat16")
    )
    fine = ablation_values(*as_it_is, batch, ablation, 4)
    rough = ablation_values(*halved, batch, ablation, 4)
    assert fine is not None and rough is not None
    for name, leaf in rough.items():
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, fine[name], atol=0.1, err_msg=name)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_a_saved_circuit_keeps_its_constants(ablation: str, tmp_path: Path) -> None:
    model = tiny.model("llama")
    data = tiny.data(model.config)
    # As `evaluate`, on accelerators too.
    execution = mg.Execution(dtype="float32")
    config = dataclasses.replace(
        CONFIG, ablation=ablation, nested=False, penalty=30.0, warmup=0.0, execution=execution
    )
    circuit = mg.discover(jax.random.key(0), model, data, config)
    recomputed = dataclasses.replace(
        config, execution=dataclasses.replace(execution, cache="batch")
    )
    again = mg.discover(jax.random.key(0), model, data, recomputed)
    chex.assert_trees_all_close(circuit.log_alpha, again.log_alpha, atol=1e-5)
    figures = mg.evaluate(model, circuit, data.validation)
    assert figures["kl"] == pytest.approx(circuit.metadata["validation"]["kl"], abs=1e-5)
    circuit.save(tmp_path / "circuit")
    loaded = mg.load_circuit(tmp_path / "circuit")
    assert mg.evaluate(model, loaded, data.validation) == figures
    # With the corrupted run's values the same masks are another function.
    assert mg.evaluate(model, circuit.masks, data.validation)["kl"] != figures["kl"]
    other = mg.discover(jax.random.key(0), model, data, CONFIG)
    with pytest.raises(mg.MgnpError, match="one by one"):
        evaluate_all(model, {"a": circuit, "b": other}, data.validation)


def test_constants_need_kept_values() -> None:
    with pytest.raises(mg.MgnpError, match="ablation must be interchange with cache off"):
        mg.DiscoverConfig(ablation="mean", execution=mg.Execution(cache="off"))
    with pytest.raises(mg.MgnpError, match="ablation must be one of"):
        mg.DiscoverConfig(ablation="noise")  # type: ignore[arg-type]
