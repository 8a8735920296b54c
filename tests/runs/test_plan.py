"""Plans from shapes alone, beside what is compiled and counted of a model that is there."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning.controller import first_controller
from mgnp_jax.methods.node_pruning.state import first_trained
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.passes.abstract_runs import equal_prompts
from mgnp_jax.passes.counting import multiply_adds
from mgnp_jax.passes.keeping import keep_what_fits
from mgnp_jax.passes.precision import as_stored
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.sharding import batch_sharding
from mgnp_jax.runs.plan import PlanConfig, compiled_bytes, figures_of, plan
from mgnp_jax.tasks.metrics import logit_difference
from tests import tiny

TOKENS, SHARED, ROWS = 12, 3, 8
MODES = {
    "kept": Execution(),
    "lockstep": Execution(cache="off", remat=True, accumulate=4),
    "parts": Execution(cache="batch", accumulate=2),
    "bfloat16": Execution(dtype="bfloat16"),
}
# Each compiles two steps.
TRIED = [*list(MODES)[:2], *(pytest.param(m, marks=pytest.mark.full) for m in list(MODES)[2:])]
figures = functools.cache(figures_of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 as a checkpoint, whose config.json is all that a plan reads."""
    path = tmp_path_factory.mktemp("checkpoint")
    mg.save_model(tiny.model("gpt2"), path)
    return path


def of(folder: Path, execution: Execution, **changes: Any) -> PlanConfig:
    config = mg.DiscoverConfig(batch_size=ROWS, execution=execution)
    return PlanConfig(model_config=folder, tokens=TOKENS, shared=SHARED, config=config, **changes)


def compiled(model: mg.Model, config: mg.DiscoverConfig) -> Any:
    """The step that a run would compile for these prompts."""
    batch = equal_prompts(ROWS, TOKENS, SHARED, logit_difference)
    params = as_stored(model.params, config.execution.precision)
    (kept,) = keep_what_fits(model.config, params, [batch], ROWS, config.execution)
    sharding, rows = batch_sharding(1, config.execution.accumulate), np.arange(ROWS)
    runs = sharding.rows(kept, rows, sharding.sizes(kept.spans, rows[None]))
    key, fixed = jax.random.key(0), config.of_a_step
    state = first_trained(fixed, model.config, key)
    given = (fixed, model.config, key, params, state, runs, first_controller(config), None)
    return train_step.lower(*given).compile()


@pytest.mark.parametrize("mode", TRIED)
def test_a_plan_has_the_memory_of_the_compiled_step(folder: Path, mode: str) -> None:
    config = of(folder, MODES[mode])
    found = figures(config)
    wanted = compiled_bytes(compiled(tiny.model("gpt2"), config.config))
    assert found["step"]["bytes"] == pytest.approx(wanted, rel=0.1)
    assert found["parameters"] == sum(x.size for x in jax.tree.leaves(tiny.model("gpt2").params))
    width = 2 if mode == "bfloat16" else 4
    assert found["weights_bytes"] == width * found["parameters"]
    assert found["peak_bytes"] >= found["step"]["bytes"] > found["weights_bytes"]


def test_multiply_adds_are_counted_product_by_product() -> None:
    x, w = jnp.ones((3, 5)), jnp.ones((7, 5, 5))

    def layers(x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return jax.lax.cond(x.sum() > 0, lambda y: y @ w @ w, lambda y: y @ w, x), None

        return jax.lax.scan(layer, x, w)[0]

    assert multiply_adds(jax.make_jaxpr(layers)(x).jaxpr) == 7 * 2 * 3 * 5 * 5
    heads = jax.make_jaxpr(lambda q, k: jnp.einsum("bqhe,bkhe->bhqk", q, k))
    q, k = jnp.ones((2, 4, 3, 6)), jnp.ones((2, 9, 3, 6))
    assert multiply_adds(heads(q, k).jaxpr) == 2 * 3 * 4 * 9 * 6
    inner = jax.make_jaxpr(jax.jit(lambda x: x @ w[0]))(x)
    assert multiply_adds(inner.jaxpr) == 3 * 5 * 5


def test_plain_passes_cost_two_forward_passes(folder: Path) -> None:
    c = tiny.GPT2
    per_token = c.layers * (4 * c.width * c.width + 2 * c.width * c.mlp_width)
    tokens = ROWS * TOKENS
    attention = 2 * c.layers * ROWS * c.heads * c.head_width * TOKENS**2
    wanted = 2 * (per_token * tokens + attention) + ROWS * c.vocab_size * c.width
    found = figures(of(folder, MODES["kept"]))
    assert found["plain"]["multiply_adds"] == pytest.approx(wanted, rel=0.1)
    # One masked pass and its gradient in activations, of the tokens that are not shared.
    masked = found["step"]["multiply_adds"]
    assert 0.5 < masked / wanted < 2


def test_what_is_asked_for_is_said(folder: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
    asked = of(folder, MODES["kept"], device_gib=1e-6, tflops=1e-6, json=tmp_path / "plan.json")
    found = plan(asked, console)
    text = console.export_text()
    assert json.loads((tmp_path / "plan.json").read_text()) == found
    assert found["fits"] is False and "does not fit in 1e-06 GiB" in text
    seconds = found["step"]["seconds"]
    assert seconds == pytest.approx(2 * found["step"]["multiply_adds"] / 1e6)
    assert found["steps_seconds"] == pytest.approx(300 * seconds) and "300 steps take" in text


def test_devices_share_the_batch_and_not_the_weights(folder: Path) -> None:
    alone, shared = (figures(of(folder, Execution(devices=n))) for n in (1, 2))
    assert shared["weights_bytes"] == alone["weights_bytes"]
    ratio = shared["step"]["multiply_adds"] / alone["step"]["multiply_adds"]
    assert ratio == pytest.approx(0.5, rel=0.1)


def test_devices_that_share_the_weights_each_have_their_part(folder: Path, tmp_path: Path) -> None:
    alone = figures(of(folder, Execution()))
    command = [sys.executable, "-m", "experiments.plan", "--model-config", str(folder)]
    flags = f"--tokens {TOKENS} --shared {SHARED} --batch-size {2 * ROWS} --devices 8 --shard 4"
    plan_of_a_group = tmp_path / "plan.json"
    subprocess.run(
        [*command, *flags.split(), "--json", str(plan_of_a_group)], check=True, capture_output=True
    )
    shared = json.loads(plan_of_a_group.read_text())
    assert shared["parameters"] == alone["parameters"]
    assert 0.25 < shared["weights_bytes"] / alone["weights_bytes"] < 0.35
    assert shared["step"]["bytes"] < alone["step"]["bytes"]
    each = shared["step"]["multiply_adds"] / alone["step"]["multiply_adds"]
    assert each == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "--tokens must be greater than 0, got 0"),
        ({"shared": 32}, "--shared must be from 0 to below --tokens, got 32"),
        ({"tflops": -1.0}, "--tflops must be greater than 0"),
        ({"config": mg.METHODS["random"]()}, "--method random cannot be planned; use node-pruning"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        PlanConfig(model_config=Path("config.json"), **changes)


def test_prompts_beyond_the_context_and_missing_files_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(mg.MgnpError, match="--tokens 17 is more than the model's context, 16"):
        figures_of(dataclasses.replace(of(folder, MODES["kept"]), tokens=17))
    with pytest.raises(mg.MgnpError, match="has no config.json"):
        figures_of(dataclasses.replace(of(folder, MODES["kept"]), model_config=tmp_path))
