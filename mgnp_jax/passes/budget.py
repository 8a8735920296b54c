"""What a run may take of the machine's memory, and what it will take of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

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

PLAIN = 4
"""Arrays as large as a layer's values that a plain pass needs at once, of each stream."""

COMPILING = 400 * 2**20
"""Bytes that compiling steps and measuring takes for a while, and what is left of it in pieces; as
seen of a whole run on SmolLM2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of the memory that passes run in, an accelerator's or the machine's.

    Attributes:
      total: most that the whole run may take.
      taken: before any plain pass: weights and programs.
      temporaries: most that steps or plain passes take beside it: their own arrays, what is left
        of the model, and what compilers leave behind.
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
    execution: Execution,
    model_config: ModelConfig,
    params: Params,
    sizes: Sizes,
    prompts: int,
    length: int,
    more: int = 0,
    beside: int = 0,
) -> Budget:
    """Divides the memory there is.

    Args:
      execution: how much may be taken.
      model_config: the model's shape.
      params: its weights.
      sizes: of a step's arrays.
      prompts: of a step that run at once.
      length: tokens that whole prompts are filled up to.
      more: bytes that a step takes beside a masked pass and its gradient.
      beside: bytes of the model's own weights, where `params` are a copy.
    """
    free, taken = free_on_device(), resident()
    host, asked = free_on_host() + taken, execution.memory_gib
    temporaries = step_bytes(model_config, sizes, prompts) + more
    if execution.compact and not execution.lockstep:
        # What is left of the layers is a copy of their weights.
        temporaries += bytes_of(params["blocks"])
    # They run before any step, while kept values fill their room.
    temporaries = max(temporaries, plain_bytes(model_config, sizes, prompts, length))
    if free is None:
        # Compilers let go of theirs only after the step that they have compiled.
        temporaries += COMPILING
        total = min(host // 2, ENOUGH) if asked is None else min(int(asked * 2**30), host)
        room = Room(device=0, host=max(total - taken - temporaries, 0), disk=free_on_disk())
        return Budget(total=total, taken=taken, temporaries=temporaries, room=room)
    weights = bytes_of(params) + beside
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
    kept = kept_floats(c, sizes.tokens)
    return 4 * (inner + attention + 2 * kept + INNER * prompts * c.vocab_size)


def plain_bytes(model_config: ModelConfig, sizes: Sizes, prompts: int, length: int) -> int:
    """About what both plain passes of whole prompts take while they run, their results included.

    Args:
      model_config: the model's shape.
      sizes: of the arrays.
      prompts: B.
      length: T of attention's grid.
    """
    c = model_config
    inner = PLAIN * sizes.whole * (c.heads * c.head_width + c.mlp_width + c.width)
    prefix = 2 * c.layers * prompts * sizes.prefix * c.kv_heads * c.head_width
    results = kept_floats(c, sizes.tokens) + prefix + prompts * c.vocab_size
    # Two streams; results lie on the device and, as they are put away, in host memory.
    return 2 * (4 * inner + attention_bytes(c, prompts, length) + 4 * results)


def attention_bytes(model_config: ModelConfig, prompts: int, length: int) -> int:
    """Scores and weights of a layer's attention, in float32.

    Args:
      model_config: the model's shape.
      prompts: B.
      length: T of the grid.
    """
    return 2 * 4 * prompts * model_config.heads * length**2


def kept_floats(model_config: ModelConfig, tokens: int) -> int:
    """How many numbers are kept of the corrupted run's tokens.

    Args:
      model_config: the model's shape.
      tokens: K.
    """
    c = model_config
    # What both write, before a norm that follows, too.
    written = (4 if c.norm_after else 2) * c.width
    return tokens * (c.layers * (c.heads * c.head_width + c.mlp_width + written) + c.width)


def bytes_of(tree: Any) -> int:
    """Bytes of a device that arrays take.

    Args:
      tree: pytree of arrays or of shapes, which may say how they lie on devices.
    """

    def of_leaf(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        return leaf.dtype.itemsize * math.prod(shape)

    return sum(map(of_leaf, jax.tree.leaves(tree)))


def bytes_beside(own: Params, stored: Params) -> int:
    """Size of the model's own weights, if those that a search runs on are others.

    Args:
      own: the model's.
      stored: that the search runs on.
    """
    both = zip(jax.tree.leaves(own), jax.tree.leaves(stored), strict=True)
    return 0 if all(a is b for a, b in both) else bytes_of(own)
