"""How passes are executed: memory, precision, devices. None of it belongs to a method."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, TypeVar

import jax

from mgnp_jax.choices import check_choices
from mgnp_jax.models.mesh import check_shard
from mgnp_jax.types import MgnpError

CacheMode = Literal["dataset", "batch", "off"]
CachePlace = Literal["auto", "device", "host", "disk"]
Dtype = Literal["auto", "float32", "bfloat16"]

Config = TypeVar("Config", bound=Any)

SAME_RESULT: dict[str, Any] = {"changes_result": False}
"""Metadata of a dataclass's field whose value cannot change what is found."""


def that_count(config: Any) -> dict[str, Any]:
    """The settings that can change what is found.

    Args:
      config: dataclass; fields with the metadata `SAME_RESULT` are left out, those of dataclasses
        in it, too.

    Returns:
      Their values by name, nested.
    """
    found = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("changes_result", True):
            del found[field.name]
        elif dataclasses.is_dataclass(value):
            found[field.name] = that_count(value)
    return found


def that_count_alone(config: Config) -> Config:
    """The same config with the settings that cannot change what is found at their defaults.

    Args:
      config: dataclass.
    """
    others = (f for f in dataclasses.fields(config) if not f.metadata.get("changes_result", True))
    return dataclasses.replace(config, **{field.name: field.default for field in others})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How passes are executed."""

    cache: CacheMode = "dataset"
    """Values of the plain passes: kept for the `dataset`, computed for each `batch`, or `off`:
    layer by layer beside the masked pass, never kept."""
    memory_gib: float | None = dataclasses.field(default=None, metadata=SAME_RESULT)
    """Most memory that the run takes: of the accelerator's if there is one, else of the machine's.
    By default half of what is free, on CPUs at most 4. Decides where values are kept, and so never
    changes a circuit."""
    cache_on: CachePlace = dataclasses.field(default="auto", metadata=SAME_RESULT)
    """Where a kept dataset lies: on the `device`, in the `host`'s memory, from which each batch is
    copied over, or in a file on `disk`, read batch by batch; by default the first that has room."""
    share_prefix: bool = True
    """Leave tokens before the first one in which a pair differs out of the masked pass; `cache`
    off runs whole prompts anyway."""
    compact: bool = True
    """Leave nodes that are closed for good out of the computation; not with `cache` off, which
    runs the whole model anyway."""
    compile_cost: float = 2e12
    """Multiply-adds that take as long as compiling a smaller model, which must save as many: some
    forty seconds of two CPU cores. Counted, not timed, so that the same seed gives the same
    circuit on a busy machine."""
    max_segments: int = 4
    """Groups of layers of a smaller model, each as wide as its widest layer; each costs the
    compilation of one more layer."""
    remat: bool = False
    """Recompute a layer's inner values in the gradient instead of keeping them: less memory."""
    dtype: Dtype = "auto"
    """Of weights and activations in training and its validations: `auto` is bfloat16 on
    accelerators, float32 on CPUs. Log-alpha, losses and optimiser stay float32, and so do the
    figures on test prompts."""
    devices: int = 1
    """Devices that share a batch; must divide its size. At least as many as `shard`."""
    shard: int = 1
    """Devices that hold the weights together, each some of the heads, hidden neurons and
    vocabulary; must divide `devices`, of which each group of so many runs the same prompts."""
    accumulate: int = 1
    """Parts of a batch that run one after another, their gradients added: less memory, also in
    the plain passes and validation. Times `devices` it must divide the batch."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        check_choices(self)
        for name in ("devices", "shard", "accumulate", "max_segments"):
            if getattr(self, name) <= 0:
                raise MgnpError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if self.devices == 1:
            object.__setattr__(self, "devices", self.shard)
        check_shard(self.devices, self.shard)
        if self.compile_cost < 0:
            raise MgnpError(f"compile_cost must not be negative, got {self.compile_cost}")
        if self.memory_gib is not None and not 0 < self.memory_gib < math.inf:
            raise MgnpError(f"memory_gib must be greater than 0, got {self.memory_gib}")

    @property
    def replicas(self) -> int:
        """Copies of the weights, each of which runs its own prompts: groups of `shard` devices."""
        return self.devices // self.shard

    @property
    def parts(self) -> int:
        """Into how many a batch is cut: replicas times parts that run one after another."""
        return self.replicas * self.accumulate

    def check_batch(self, batch_size: int) -> None:
        """Refuses batches that cannot be cut up evenly.

        Args:
          batch_size: prompts a step.
        """
        if batch_size % self.parts:
            groups = f"{self.devices} / {self.shard}" if self.shard > 1 else self.devices
            raise MgnpError(
                f"devices{' / shard' if self.shard > 1 else ''} times accumulate must divide "
                f"batch_size, got {groups} × {self.accumulate} for {batch_size} prompts a step"
            )

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Of weights and activations in training, on the device that there is."""
        if self.dtype != "auto":
            return self.dtype
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"

    @property
    def lockstep(self) -> bool:
        """Whether the corrupted run goes beside the masked one, layer by layer."""
        return self.cache == "off"


def execution_of(method: Any) -> Execution:
    """How a method is run; those that say nothing of it run in float32 on one device.

    Args:
      method: config of one.
    """
    return getattr(method, "execution", Execution(dtype="float32"))
