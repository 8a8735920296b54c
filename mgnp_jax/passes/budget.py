"""What a run may take of the machine's memory, and what it will take of it."""

from __future__ import annotations

import dataclasses

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.memory import free_on_device, free_on_host, resident
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.spans import Sizes
from mgnp_jax.passes.storage import Room, free_on_disk, gib
from mgnp_jax.types import Params

ENOUGH = 4 * 2**30
"""Bytes that a run on CPUs takes by default at most: what lies in a file beyond it is read from
the system's cache, and leaves the machine to others."""

INNER = 9
"""Arrays as large as a layer's values that a step keeps of them."""

COMPILING = 300 * 2**20
"""Bytes that compiling a step takes for a while."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of the memory that passes run in, an accelerator's or the machine's.

    Attributes:
      total: most that the whole run may take.
      taken: before any plain pass: weights and programs.
      temporaries: most that steps take beside it: their own arrays, what is left of the model,
        and what compilers leave behind.
      room: what is left for values of plain passes, and what other places have.
    """

    total: int
    taken: int
    temporaries: int
    room: Room

    def __str__(self) -> str:
        """As a person reads it."""
        least = self.taken + self.temporaries
        text = (
            f"the run may take {gib(self.total)}; {gib(self.taken)} are taken, steps need "
            f"up to {gib(self.temporaries)}"
        )
        if least > self.total:
            text += f", which may be {gib(least - self.total)} more than allowed"
        return text


def budget_of(
    execution: Execution, model_config: ModelConfig, params: Params, sizes: Sizes, prompts: int
) -> Budget:
    """Divides the memory there is.

    Args:
      execution: how much may be taken.
      model_config: the model's shape.
      params: its weights.
      sizes: of a step's arrays.
      prompts: of a step that run at once.
    """
    free, taken = free_on_device(), resident()
    host, asked = free_on_host() + taken, execution.memory_gib
    temporaries = step_bytes(model_config, sizes, prompts)
    if execution.compact and not execution.lockstep:
        # What is left of the layers is a copy of their weights.
        temporaries += weight_bytes(params["blocks"])
    if free is None:
        # Compilers let go of theirs only after the step that they have compiled.
        temporaries += COMPILING
        total = min(host // 2, ENOUGH) if asked is None else min(int(asked * 2**30), host)
        room = Room(device=0, host=max(total - taken - temporaries, 0), disk=free_on_disk())
        return Budget(total=total, taken=taken, temporaries=temporaries, room=room)
    # Beside those that passes run on, the model's own, in float32.
    weights = weight_bytes(params) * (1 if execution.dtype == "float32" else 3)
    device = free + weights
    total = device // 2 if asked is None else min(int(asked * 2**30), device)
    room = Room(
        device=max(total - weights - temporaries, 0),
        host=max(host // 2 - taken - COMPILING, 0),
        disk=free_on_disk(),
    )
    return Budget(total=total, taken=weights, temporaries=temporaries, room=room)


def step_bytes(model_config: ModelConfig, sizes: Sizes, prompts: int) -> int:
    """About what a step takes while it runs, its batch of kept values and the next one's included.

    A layer's inner values are kept for the gradient: `INNER` of every width, and attention's
    scores and weights; as read off compiled steps of two families.

    Args:
      model_config: the model's shape.
      sizes: of the step's arrays.
      prompts: B.
    """
    c = model_config
    z = c.heads * c.head_width
    inner = c.layers * sizes.tokens * INNER * (z + c.mlp_width + c.width)
    seen = sizes.positions * (sizes.prefix + sizes.positions)
    attention = 2 * c.layers * prompts * c.heads * seen
    kept = sizes.tokens * (c.layers * (z + c.mlp_width + 2 * c.width) + c.width)
    return 4 * (inner + attention + 2 * kept + INNER * prompts * c.vocab_size)


def weight_bytes(params: Params) -> int:
    """Bytes of a model's weights.

    Args:
      params: they.
    """
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))
