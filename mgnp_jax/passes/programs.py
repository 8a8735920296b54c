"""What a search compiles, known before there are weights: its programs, and what lies beside them.

A search runs a few programs again and again. Each can be traced, lowered and compiled from shapes
alone, which says what memory it takes and how many multiply-adds it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jax.stages import Traced

from mgnp_jax.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One of them.

    Attributes:
      traced: it, ready to be lowered and compiled.
      times: how often a search runs it.
      devices: that share its work.
      beside: bytes of a device that are taken by arrays which it does not read.
    """

    traced: Traced
    times: int
    devices: int = 1
    beside: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """All of them.

    Attributes:
      params: shapes of the weights that they read.
      prompts: that one device runs at once.
      each: by name.
      halved: whether those weights are in bfloat16, which is a copy where the model's own are not.
    """

    params: Params
    prompts: int
    halved: bool = False
    each: Mapping[str, Program]
