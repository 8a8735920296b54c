"""What a search of a model that is not here would cost: memory, multiply-adds, time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.stages import Compiled
from rich.console import Console

from mgnp_jax.files import read_object, write_whole
from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.methods.protocol import Planned
from mgnp_jax.models.hub import read_model_config
from mgnp_jax.passes.abstract_runs import equal_prompts
from mgnp_jax.passes.budget import bytes_of
from mgnp_jax.passes.counting import multiply_adds
from mgnp_jax.passes.programs import Program, Programs
from mgnp_jax.passes.settings import execution_of
from mgnp_jax.passes.storage import gib
from mgnp_jax.report.tables import Table
from mgnp_jax.runs.config import checked_method
from mgnp_jax.runs.virtual_devices import on_virtual_devices
from mgnp_jax.tasks.metrics import logit_difference
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import MgnpError

GIB = 2**30

TOLD = {
    "plain": "Plain passes",
    "differences": "Differences, clean less corrupted",
    "effects": "Gradients at a point",
    "step": "A step",
}
"""What programs are called in the table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Says what a search would take, without weights: compiled from shapes, nothing is run."""

    model_config: Path
    """A model's config.json, or the folder it is in."""
    device_gib: float | None = None
    """Memory of one device, to be told whether it is enough."""
    tflops: float | None = None
    """Rate that one device reaches, in 10^12 operations a second, to be told how long it takes. A
    multiply-add is two operations."""
    prompts: int = 200
    """For training."""
    tokens: int = 32
    """Of each prompt."""
    shared: int = 0
    """Tokens of each before the first in which clean and corrupted differ."""
    json: Path | None = None
    """Where to write the figures, too."""
    method: str = ""
    """By name; not all can be planned. Decides which further flags there are."""
    config: Any = DEFAULT()
    """The method's own; batch size and execution decide most."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        object.__setattr__(self, "method", checked_method(self.method, self.config))
        if not isinstance(self.config, Planned):
            others = ", ".join(name for name, kind in METHODS.items() if issubclass(kind, Planned))
            raise MgnpError(f"--method {self.method} cannot be planned; use one of {others}")
        for name in ("prompts", "tokens", "device_gib", "tflops"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise MgnpError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")
        if not 0 <= self.shared < self.tokens:
            raise MgnpError(f"--shared must be from 0 to below --tokens, got {self.shared}")

    @property
    def devices(self) -> int:
        """That share the work."""
        return execution_of(self.config).devices


def plan(config: PlanConfig, console: Console) -> dict[str, Any]:
    """Compiles what a search runs again and again, and prints its cost.

    Args:
      config: of what.
      console: where to report.

    Returns:
      The figures: bytes of one device, multiply-adds of one device, seconds.

    Raises:
      MgnpError: if the model cannot be read, its context is shorter than the prompts, or the
        method does not work on it.
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
    rows = [("Weights alone", gib(found["weights_bytes"]), "–", "–", "–")]
    for name, told in TOLD.items():
        if (cost := found.get(name)) is not None:
            seconds = f"{cost['seconds']:.3g}" if "seconds" in cost else "–"
            counts = f"{cost['multiply_adds']:.4g}", seconds, f"{cost['times']:,}"
            rows.append((told, gib(cost["bytes"]), *counts))
    prompts = many(found["prompts"], "prompt")
    return Table(
        title=f"One device of {config.devices}: {prompts} of {config.tokens} tokens at once",
        columns=("", "Memory", "Multiply-adds", "Seconds", "Times"),
        rows=tuple(rows),
    )


def _said(config: PlanConfig, found: Mapping[str, Any]) -> Iterator[str]:
    """What is printed below them."""
    yield (
        f"{found['parameters']:,} parameters; memory is what XLA lays out on this platform "
        f"({found['platform']}), weights included, values kept of other batches left out"
    )
    if found["platform"] == "cpu" and found["precision"] == "float32":
        yield (
            "In float32, as runs on CPUs are; those of methods with --dtype are in bfloat16 on "
            "accelerators, which --dtype bfloat16 plans"
        )
    if own := found["own_weights_bytes"]:
        yield f"The model's own weights, of which those are a copy in 16 bits: {gib(own)} beside"
    elif found["precision"] != "float32":
        yield "Accelerators run the checkpoint's own 16 bits; on CPUs a copy would lie beside them"
    for name, told in TOLD.items():
        if beside := found.get(name, {}).get("beside_bytes"):
            yield f"{told}: up to {gib(beside)} lie beside it"
    if "fits" in found:
        verdict = "fits" if found["fits"] else "does not fit"
        yield f"{gib(found['peak_bytes'])} {verdict} in {config.device_gib:g} GiB"
    if "search_seconds" in found:
        yield f"A search takes {found['search_seconds']:,.1f} s at this rate"


def figures_of(config: PlanConfig) -> dict[str, Any]:
    """The figures, see `plan`.

    Args:
      config: of what.
    """
    if config.devices > jax.device_count():
        # Without what the command line has put into the type, which another process cannot find.
        fields = dataclasses.fields(PlanConfig)
        alone = PlanConfig(**{field.name: getattr(config, field.name) for field in fields})
        return on_virtual_devices(config.devices, _figures_here, alone)
    return _figures_here(config)


def _figures_here(config: PlanConfig) -> dict[str, Any]:
    """The figures, by the devices that this process has."""
    model_config = read_model_config(config.model_config)
    if config.tokens > model_config.context:
        raise MgnpError(
            f"--tokens {config.tokens} is more than the model's context, {model_config.context}"
        )
    train = equal_prompts(config.prompts, config.tokens, config.shared, logit_difference)
    programs = config.config.programs(model_config, train)
    own = bytes_of(programs.params) * _own_width(config.model_config) if programs.halved else 0
    return _figures(config, programs, own)


def _own_width(path: Path) -> int:
    """How often a copy in bfloat16 would fit in weights as the checkpoint has them; 0 for none."""
    raw = read_object(path if path.is_file() else path / "config.json")
    times: dict[Any, int] = {"bfloat16": 0, "float16": 1}
    return times.get(raw.get("dtype", raw.get("torch_dtype")), 2)


def _figures(config: PlanConfig, programs: Programs, own: int) -> dict[str, Any]:
    costs = {name: _cost(program) for name, program in programs.each.items()}
    found: dict[str, Any] = {
        "platform": jax.default_backend(),
        "precision": execution_of(config.config).precision,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(programs.params)),
        "weights_bytes": bytes_of(programs.params),
        "own_weights_bytes": own,
        "prompts": programs.prompts,
        **costs,
        "peak_bytes": own + max(c["bytes"] + c["beside_bytes"] for c in costs.values()),
    }
    if config.device_gib is not None:
        found["fits"] = found["peak_bytes"] <= config.device_gib * GIB
    if config.tflops is not None:
        for cost in costs.values():
            cost["seconds"] = 2 * cost["multiply_adds"] / (config.tflops * 1e12)
        found["search_seconds"] = sum(c["times"] * c["seconds"] for c in costs.values())
    return found


def _cost(program: Program) -> dict[str, Any]:
    """Bytes and multiply-adds that a program takes of a device."""
    return {
        "bytes": compiled_bytes(program.traced.lower().compile()),
        "beside_bytes": program.beside,
        "multiply_adds": multiply_adds(program.traced.jaxpr.jaxpr) // program.devices,
        "times": program.times,
    }


def compiled_bytes(compiled: Compiled) -> int:
    """Arguments, temporaries and outputs of a compiled program on a device; shared buffers once.

    Args:
      compiled: the program.
    """
    memory: Any = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return total + memory.output_size_in_bytes - memory.alias_size_in_bytes
