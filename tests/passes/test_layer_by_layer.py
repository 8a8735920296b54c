"""A circuit run layer by layer is the circuit run at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.masks.hierarchy import consistent
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.layer_by_layer import apart, streams_apart
from mgnp_jax.passes.node_forward import masked_residual
from tests import tiny


# A norm over the queries of all heads needs those that are closed, too.
@pytest.mark.parametrize("attending", [0, 1, 3])
@pytest.mark.parametrize("family", ["olmo2", pytest.param("gemma2", marks=pytest.mark.full)])
def test_layers_as_narrow_as_their_circuit_write_the_same(family: str, attending: int) -> None:
    model, rng = tiny.model(family), np.random.default_rng(0)
    c, params = model.config, model.params
    drawn = {n: rng.random(m.shape) < 0.7 for n, m in mg.full_masks(c).items()}
    drawn["attention_blocks"][:] = drawn["mlp_blocks"][:] = True
    drawn["attention_blocks"][attending:] = False
    masks = jax.device_get(consistent(jax.device_put(drawn)))
    heads = masks["attention_heads"].sum(1)
    assert any(heads <= c.heads // 2)
    runs = plain_runs(c, params, tiny.batch(c, shared=3))
    circuit = apart(c, params, masks)
    prompts = circuit.prompts(c, runs)
    streams = streams_apart(c, params, circuit, prompts)
    # After the last layer that has heads, the answer's tokens alone.
    tokens = [len(runs.clean)] * attending
    tokens += [len(runs.layout.answers)] * (c.layers + 1 - attending)
    assert [len(stream) for stream in streams] == tokens
    gates = {name: jnp.asarray(mask, jnp.float32) for name, mask in masks.items()}
    wanted = masked_residual(c, params, [gates], runs.clean, runs.corrupted, runs.layout)
    answers = runs.layout.answers
    tiny.assert_near(streams[-1], wanted[answers])
    at_answers = prompts.at_answers(streams)
    np.testing.assert_array_equal(at_answers[-1], streams[-1])
    np.testing.assert_allclose(at_answers[0], streams[0][answers] if attending else streams[0])
