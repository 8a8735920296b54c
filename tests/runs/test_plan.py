"""Plans from shapes alone, beside what is compiled and counted of a model that is there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.methods.attribution.config import EapConfig, EapIgConfig, NapIgConfig
from mgnp_jax.methods.learned import loop as learned_loop
from mgnp_jax.methods.node_pruning import loop as pruning_loop
from mgnp_jax.models.hub import read_model_config
from mgnp_jax.models.weights import param_shapes
from mgnp_jax.passes import cached_runs, effects
from mgnp_jax.passes.abstract_runs import equal_prompts
from mgnp_jax.passes.counting import multiply_adds
from mgnp_jax.passes.settings import Execution
from mgnp_jax.runs.plan import PlanConfig, compiled_bytes, figures_of, plan
from mgnp_jax.runs.virtual_devices import on_virtual_devices
from mgnp_jax.tasks.metrics import logit_difference
from tests import tiny

TOKENS, SHARED, ROWS = 12, 3, 8
SHAPES = Path(__file__).parents[2] / "experiments" / "model_configs"
MODES = {
    "kept": Execution(),
    "lockstep": Execution(cache="off", remat=True, accumulate=4),
    "parts": Execution(cache="batch", accumulate=2),
    "bfloat16": Execution(dtype="bfloat16"),
}
EDGE_MODES = {"kept": Execution(), "parts": Execution(cache="batch", accumulate=2)}


def pruning(execution: Execution) -> mg.DiscoverConfig:
    return mg.DiscoverConfig(steps=1, batch_size=ROWS, execution=execution)


def learned(name: str, execution: Execution = Execution(), **more: Any) -> Any:  # noqa: B008
    method: Any = mg.METHODS[name]
    return method(steps=1, batch_size=ROWS, execution=execution, **more)


CONFIGS: dict[str, Any] = {
    **{f"node-pruning, {name}": pruning(execution) for name, execution in MODES.items()},
    **{
        f"edge-pruning, {name}": learned("edge-pruning", execution)
        for name, execution in EDGE_MODES.items()
    },
    "eap": EapConfig(),
    "eap-ig along masks": EapIgConfig(along="activations", ig_steps=3),
    "nap-ig": NapIgConfig(ig_steps=3),
    "mattr": learned("mattr"),
    "ugs": learned("ugs", draws=2, at_once=1),
}
ALWAYS = ("node-pruning, kept", "node-pruning, lockstep", "edge-pruning, parts", "eap")
# Each compiles what it runs twice.
TRIED = [
    *ALWAYS,
    *(pytest.param(name, marks=pytest.mark.full) for name in CONFIGS if name not in ALWAYS),
]
figures = functools.cache(figures_of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 as a checkpoint, whose config.json is all that a plan reads."""
    path = tmp_path_factory.mktemp("checkpoint")
    mg.save_model(tiny.model("gpt2"), path)
    return path


def of(folder: Path, config: Any, **changes: Any) -> PlanConfig:
    more: dict[str, Any] = {"prompts": ROWS, "tokens": TOKENS, "shared": SHARED} | changes
    return PlanConfig(model_config=folder, config=config, **more)


def compiled_in_a_run(config: Any, family: str = "gpt2") -> dict[str, int]:
    """Bytes of the programs that a search of such prompts compiles, by the names of a plan."""
    model = tiny.model(family)
    train = equal_prompts(ROWS, TOKENS, SHARED, logit_difference)
    found: dict[str, int] = {}

    def watched(name: str, function: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            found[name] = compiled_bytes(function.lower(*arguments).compile())
            return function(*arguments)

        return call

    with contextlib.ExitStack() as stack:
        for where, attribute, name in (
            (pruning_loop, "train_step", "step"),
            (learned_loop, "learned_step", "step"),
            (effects, "mask_gradient", "effects"),
        ):
            function = watched(name, getattr(where, attribute))
            stack.enter_context(mock.patch.object(where, attribute, function))
        if (kind := getattr(config, "kind", None)) is not None:
            function = watched("effects", kind.effects)
            changed = kind._replace(effects=function)
            stack.enter_context(mock.patch.object(type(config), "kind", changed))
        run, plain = cached_runs._run, []

        def first(*arguments: Any) -> Any:
            if not plain:
                plain.append(compiled_bytes(run.lower(*arguments).compile()))
            return run(*arguments)

        stack.enter_context(mock.patch.object(cached_runs, "_run", first))
        config.find(
            jax.random.key(0),
            model,
            dataclasses.replace(tiny.data(model.config), train=train, validation=train),
            lambda record: None,
        )
    return found | ({"plain": plain[0]} if plain else {})


@pytest.mark.parametrize("name", TRIED)
def test_a_plan_has_the_memory_of_what_a_run_compiles(folder: Path, name: str) -> None:
    config = of(folder, CONFIGS[name])
    found, wanted = figures(config), compiled_in_a_run(config.config)
    assert wanted
    for program, size in wanted.items():
        assert found[program]["bytes"] == pytest.approx(size, rel=0.1), program
    assert found["parameters"] == sum(x.size for x in jax.tree.leaves(tiny.model("gpt2").params))
    width = 2 if "bfloat16" in name else 4
    assert found["weights_bytes"] == width * found["parameters"]
    largest = max(found[program]["bytes"] for program in wanted)
    assert found["peak_bytes"] >= largest > found["weights_bytes"]


BOTH = Execution(devices=4, shard=2)
PARTS = Execution(devices=2, accumulate=2, cache="batch")
SEVERAL = (
    ("node-pruning", BOTH),
    *(
        pytest.param(method, execution, marks=pytest.mark.full)
        for method, execution in (
            ("node-pruning", PARTS),
            ("edge-pruning", BOTH),
            ("edge-pruning", PARTS),
        )
    ),
)


@pytest.mark.parametrize(("method", "execution"), SEVERAL)
def test_several_devices_are_planned_as_they_are_compiled(
    folder: Path, method: str, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIGS[f"{method}, kept"], execution=execution)
    wanted = on_virtual_devices(execution.devices, compiled_in_a_run, config)
    # What else may say how many there are does not count.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    found = figures(of(folder, config))
    for program in ("step", "plain"):
        assert found[program]["bytes"] == pytest.approx(wanted[program], rel=0.1), program
    assert found["prompts"] == ROWS // execution.parts
    # Norms and biases, much of so small a model, are on all devices that share the weights.
    part = found["weights_bytes"] / (4 * found["parameters"])
    assert part == 1 if execution.shard == 1 else 0.5 < part < 0.6
    parts = Execution(accumulate=execution.parts, cache=execution.cache)
    prompts = equal_prompts(ROWS, TOKENS, SHARED, logit_difference)
    step = dataclasses.replace(config, execution=parts).programs(tiny.GPT2, prompts).each["step"]
    alone = multiply_adds(step.traced.jaxpr.jaxpr)
    assert found["step"]["multiply_adds"] == pytest.approx(alone / execution.devices, rel=0.01)


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
    found = figures(of(folder, CONFIGS["node-pruning, kept"]))
    assert found["plain"]["multiply_adds"] == pytest.approx(wanted, rel=0.1)
    # One masked pass and its gradient in activations, of the tokens that are not shared.
    masked = found["step"]["multiply_adds"]
    assert 0.5 < masked / wanted < 2


def test_what_is_asked_for_is_said(folder: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
    asked = of(
        folder,
        CONFIGS["node-pruning, kept"],
        device_gib=1e-6,
        tflops=1e-6,
        json=tmp_path / "plan.json",
    )
    found = plan(asked, console)
    text = console.export_text()
    assert json.loads((tmp_path / "plan.json").read_text()) == found
    assert found["fits"] is False and "does not fit in 1e-06 GiB" in text
    seconds = found["step"]["seconds"]
    assert seconds == pytest.approx(2 * found["step"]["multiply_adds"] / 1e6)
    whole = seconds + found["plain"]["seconds"]
    assert found["search_seconds"] == pytest.approx(whole) and "A search takes" in text


def test_what_lies_beside_the_programs_counts(folder: Path) -> None:
    model = tiny.model("gpt2")
    weights, blocks = (
        4 * sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (model.params, model.params["blocks"])
    )
    # A smaller model's weights; the model's own, in float32, beside those in bfloat16.
    for name, beside in (
        ("node-pruning, kept", blocks),
        ("node-pruning, lockstep", 0),
        ("node-pruning, bfloat16", blocks // 2),
    ):
        found = figures(of(folder, CONFIGS[name]))
        assert found["step"]["beside_bytes"] == beside
        own = weights if "bfloat16" in name else 0
        assert found["own_weights_bytes"] == own
        assert found["peak_bytes"] >= found["step"]["bytes"] + beside + own


@pytest.mark.parametrize(("dtype", "times"), [("bfloat16", 0), ("float16", 1)])
def test_weights_of_a_checkpoint_in_16_bits_lie_there_once(
    folder: Path, tmp_path: Path, dtype: str, times: int
) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"dtype": dtype}))
    found = figures(of(tmp_path, CONFIGS["node-pruning, bfloat16"]))
    # Only bfloat16 is run as it is.
    assert found["own_weights_bytes"] == times * found["weights_bytes"]


def test_programs_are_run_as_often_as_a_search_does() -> None:
    prompts = equal_prompts(70, 4, 0, logit_difference)

    def times(config: Any) -> dict[str, int]:
        each = config.programs(tiny.GPT2, prompts).each
        return {name: program.times for name, program in each.items()}

    assert times(EapIgConfig(ig_steps=5)) == {"plain": 3, "differences": 3, "effects": 15}
    step = dataclasses.replace(CONFIGS["node-pruning, parts"], steps=10)
    # Each part of each step; or once all prompts.
    assert times(step) == {"plain": 20, "step": 10}
    kept = dataclasses.replace(step, execution=Execution())
    assert times(kept) == {"plain": 9, "step": 10}


@pytest.mark.parametrize(
    "name", ["eap", pytest.param("edge-pruning, kept", marks=pytest.mark.full)]
)
def test_edges_are_planned_where_a_norm_follows_attention(tmp_path: Path, name: str) -> None:
    mg.save_model(tiny.model("gemma2"), tmp_path)
    config = of(tmp_path, CONFIGS[name])
    found, wanted = figures_of(config), compiled_in_a_run(config.config, "gemma2")
    assert wanted
    for program, size in wanted.items():
        assert found[program]["bytes"] == pytest.approx(size, rel=0.1), program


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2-xl", 1_557_611_200),
        ("gemma-2-2b", 2_614_341_888),
        ("llama-3.1-8b", 8_030_261_248),
    ],
)
def test_the_shapes_that_are_here_are_those_of_the_published_models(
    name: str, parameters: int
) -> None:
    config = read_model_config(SHAPES / f"{name}.json")
    assert sum(map(math.prod, param_shapes(config).values())) == parameters


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(mg.MgnpError, match="planned for 2 devices ended by itself"):
        on_virtual_devices(2, os._exit, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": 0}, "--prompts must be greater than 0, got 0"),
        ({"tokens": 0}, "--tokens must be greater than 0, got 0"),
        ({"shared": 32}, "--shared must be from 0 to below --tokens, got 32"),
        ({"tflops": -1.0}, "--tflops must be greater than 0"),
        (
            {"config": mg.METHODS["random"]()},
            "--method random cannot be planned; use one of node-pruning, eap",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(mg.MgnpError, match=message):
        PlanConfig(model_config=Path("config.json"), **changes)


def test_prompts_beyond_the_context_and_missing_files_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(mg.MgnpError, match="--tokens 17 is more than the model's context, 16"):
        figures_of(dataclasses.replace(of(folder, CONFIGS["node-pruning, kept"]), tokens=17))
    with pytest.raises(mg.MgnpError, match="has no config.json"):
        figures_of(
            dataclasses.replace(of(folder, CONFIGS["node-pruning, kept"]), model_config=tmp_path)
        )
