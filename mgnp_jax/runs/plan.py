"""What a model that is not here would cost: memory, multiply-adds, time, from shapes alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.stages import Compiled
from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.methods import DEFAULT
from mgnp_jax.methods.protocol import Planned
from mgnp_jax.models.hub import read_model_config
from mgnp_jax.models.mesh import mesh_of
from mgnp_jax.passes.abstract_runs import abstract_params, abstract_runs, equal_prompts
from mgnp_jax.passes.budget import weight_bytes
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.counting import multiply_adds
from mgnp_jax.passes.keeping import shares_prefix
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.passes.storage import gib
from mgnp_jax.report.tables import Table
from mgnp_jax.runs.config import checked_method
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import MgnpError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Says what a search would take, without weights: compiled from shapes, nothing is run."""

    model_config: Path
    """A model's config.json, or the folder it is in."""
    device_gib: float | None = None
    """Memory of one device, to be told whether it is enough."""
    tflops: float | None = None
    """Rate that one device reaches, in 10^12 operations a second, to be told how long a step
    takes. A multiply-add is two operations."""
    tokens: int = 32
    """Of each prompt."""
    shared: int = 0
    """Tokens of each before the first in which clean and corrupted differ."""
    json: Path | None = None
    """Where to write the figures, too."""
    method: str = ""
    """By name; one that is trained step by step. Decides which further flags there are."""
    config: Any = DEFAULT()
    """The method's own; batch size and execution decide most."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        object.__setattr__(self, "method", checked_method(self.method, self.config))
        if not isinstance(self.config, Planned):
            raise MgnpError(f"--method {self.method} cannot be planned; use {DEFAULT.name}")
        for name in ("tokens", "device_gib", "tflops"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise MgnpError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")
        if not 0 <= self.shared < self.tokens:
            raise MgnpError(f"--shared must be from 0 to below --tokens, got {self.shared}")

    @property
    def devices(self) -> int:
        """That share a batch, alone or in groups that share the weights."""
        return self.config.execution.devices

    @property
    def of_one_device(self) -> Any:
        """The method's config for what one device, or one such group, has of a batch."""
        execution = self.config.execution
        rows = self.config.batch_size // execution.replicas
        alone = dataclasses.replace(execution, devices=execution.shard)
        return dataclasses.replace(self.config, batch_size=rows, execution=alone)


def plan(config: PlanConfig, console: Console) -> dict[str, Any]:
    """Compiles a step and the plain passes of a device's share of a batch, and prints their cost.

    Args:
      config: of what.
      console: where to report.

    Returns:
      The figures: bytes of one device, multiply-adds of one device, seconds.

    Raises:
      MgnpError: if the model cannot be read or its context is shorter than the prompts.
    """
    found = figures_of(config)
    console.print(_table(config, found).rich())
    for line in _said(config, found):
        console.print(line, highlight=False, soft_wrap=True)
    if config.json is not None:
        write_whole(config.json, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found


def _table(config: PlanConfig, found: Mapping[str, Any]) -> Table:
    """What is printed of the figures."""
    rows = [("Weights alone", gib(found["weights_bytes"]), "–", "–")]
    for name, told in (("step", "A step"), ("plain", "Plain passes of its prompts")):
        cost = found[name]
        seconds = f"{cost['seconds']:.3g}" if "seconds" in cost else "–"
        rows.append((told, gib(cost["bytes"]), f"{cost['multiply_adds']:.4g}", seconds))
    prompts = many(config.of_one_device.batch_size, "prompt")
    return Table(
        title=f"One device of {config.devices}: {prompts} of {config.tokens} tokens a step",
        columns=("", "Memory", "Multiply-adds", "Seconds"),
        rows=tuple(rows),
    )


def _said(config: PlanConfig, found: Mapping[str, Any]) -> Iterator[str]:
    """What is printed below them."""
    yield (
        f"{found['parameters']:,} parameters; memory is what XLA lays out on this platform "
        f"({jax.default_backend()}), weights included, values kept of other batches left out"
    )
    if "fits" in found:
        verdict = "fits" if found["fits"] else "does not fit"
        yield f"{gib(found['peak_bytes'])} {verdict} in {config.device_gib:g} GiB"
    if "steps_seconds" in found:
        yield f"{config.config.steps:,} steps take {found['steps_seconds']:,.1f} s at this rate"


def figures_of(config: PlanConfig) -> dict[str, Any]:
    """The figures, see `plan`.

    Args:
      config: of what.
    """
    _start(config.config.execution.shard)
    model_config = read_model_config(config.model_config)
    if config.tokens > model_config.context:
        raise MgnpError(
            f"--tokens {config.tokens} is more than the model's context, {model_config.context}"
        )
    method = config.of_one_device
    rows, execution = method.batch_size, method.execution
    shard = execution.shard
    params = abstract_params(model_config, execution.precision, mesh_of(shard, shard))
    batch = equal_prompts(rows, config.tokens, config.shared, logit_difference)
    share = shares_prefix(execution, method.ablation)
    runs = abstract_runs(model_config, params, batch, execution, share)
    step = method.traced_step(model_config, params, runs)
    at_once = batch.take(slice(rows // execution.accumulate))
    plain = jax.jit(
        lambda weights: plain_runs(model_config, weights, at_once, share_prefix=share)
    ).trace(params)
    found: dict[str, Any] = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "weights_bytes": weight_bytes(params),
        "step": _cost(step, shard),
        "plain": _cost(plain, shard),
    }
    found["plain"]["multiply_adds"] *= execution.accumulate
    found["peak_bytes"] = max(found[name]["bytes"] for name in ("step", "plain"))
    if config.device_gib is not None:
        found["fits"] = found["peak_bytes"] <= config.device_gib * GIB
    if config.tflops is not None:
        for name in ("step", "plain"):
            operations = 2 * found[name]["multiply_adds"]
            found[name]["seconds"] = operations / (config.tflops * 1e12)
        # What is kept of the plain passes is computed once, not at every step.
        found["steps_seconds"] = config.config.steps * found["step"]["seconds"]
    return found


def _start(devices: int) -> None:
    """Starts JAX with so many devices to compile for; on CPUs there are as many as it is told."""
    # Too late where it has been started: then there must be enough.
    with contextlib.suppress(RuntimeError):
        if devices > 1:
            jax.config.update("jax_num_cpu_devices", devices)
    check_device()


def _cost(traced: Any, shard: int) -> dict[str, int]:
    """Bytes and multiply-adds of a program on one of the devices that run it together."""
    return {
        "bytes": compiled_bytes(traced.lower().compile()),
        "multiply_adds": multiply_adds(traced.jaxpr.jaxpr) // shard,
    }


def compiled_bytes(compiled: Compiled) -> int:
    """Arguments, temporaries and outputs of a compiled program; shared buffers once.

    Args:
      compiled: the program.
    """
    memory: Any = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return total + memory.output_size_in_bytes - memory.alias_size_in_bytes
