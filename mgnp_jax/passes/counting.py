"""Multiply-adds of a traced function, counted product by product.

XLA's own count has a loop's body once, however often it runs, and differs from device to device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax.extend.core as core


def multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Multiply-adds of all matrix products in a program.

    Element-wise work is not counted. Of a choice the dearer branch counts; a loop whose length is
    known only when it runs counts once.

    Args:
      jaxpr: of the program, whose loops over layers are `lax.scan`s.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _of_product(equation)
            continue
        counts = [multiply_adds(inner) for inner in inner_jaxprs(equation.params)]
        if equation.primitive.name == "cond":
            total += max(counts, default=0)
        else:
            total += sum(counts) * equation.params.get("length", 1)
    return total


def _of_product(equation: Any) -> int:
    left, right = (operand.aval.shape for operand in equation.invars)
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    summed = math.prod(left[axis] for axis in contracted)
    together = math.prod(left[axis] for axis in batch)
    return math.prod(left) * math.prod(right) // (summed * together) if summed * together else 0


def inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """Programs that an equation runs.

    Args:
      params: the equation's.
    """
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each
