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
the system's cache nearly as fast, and leaves the machine to others."""

INNER = 9
"""Arrays as large as a layer's values that a step keeps of them."""

COMPILING = 400 * 2**20
"""Bytes that compiling a step takes for a while."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of the memory that passes run in, an accelerator's or the machine's.

    Attributes:
      total: most that the whole run may take.
      taken: before any plain pass: weights and programs.
      temporaries: most that a step, or its compilation, takes while it runs.
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
            f"{gib(self.total)} of memory may be taken: {gib(self.taken)} are, "
            f"a step takes {gib(self.temporaries)}"
        )
        if least > self.total:
            text += f", which is {gib(least - self.total)} more (--memory-gib)"
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
    host = (free_on_host() + taken) // 2
    asked = None if execution.memory_gib is None else int(execution.memory_gib * 2**30)
    temporaries = step_bytes(model_config, sizes.tokens, prompts)
    if free is None:
        total = asked or min(host, ENOUGH)
        temporaries = max(temporaries, COMPILING)
        room = Room(device=0, host=max(total - taken - temporaries, 0), disk=free_on_disk())
        return Budget(total=total, taken=taken, temporaries=temporaries, room=room)
    weights = weight_bytes(params)
    total = asked or (free + weights) // 2
    room = Room(
        device=max(total - weights - temporaries, 0),
        host=max(host - taken - COMPILING, 0),
        disk=free_on_disk(),
    )
    return Budget(total=total, taken=weights, temporaries=temporaries, room=room)


def step_bytes(model_config: ModelConfig, tokens: int, prompts: int) -> int:
    """About what a step takes while it runs, its batch of kept values and the next one's included.

    A layer's inner values are kept for the gradient: `INNER` of every width, as read off compiled
    steps of two families and five shapes, with an error of a tenth.

    Args:
      model_config: the model's shape.
      tokens: K.
      prompts: B.
    """
    c = model_config
    z = c.heads * c.head_width
    inner = c.layers * tokens * INNER * (z + c.mlp_width + c.width)
    kept = tokens * (c.layers * (z + c.mlp_width + 2 * c.width) + c.width)
    return 4 * (inner + 2 * kept + INNER * prompts * c.vocab_size)


def weight_bytes(params: Params) -> int:
    """Bytes of a model's weights.

    Args:
      params: they.
    """
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))
