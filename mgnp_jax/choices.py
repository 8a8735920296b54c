"""Settings that have one of a few names: a name that is none of them is refused, not passed by."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mgnp_jax.types import MgnpError


def check_choices(settings: Any) -> None:
    """Refuses a setting that is none of those that its type names.

    The command line offers no others; from Python nothing else would say so.

    Args:
      settings: a dataclass; its fields of type `Literal` are looked at.

    Raises:
      MgnpError: naming the setting, what it may be and what it is.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        kind, value = hints[field.name], getattr(settings, field.name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            known = ", ".join(map(str, get_args(kind)))
            raise MgnpError(f"{field.name} must be one of {known}, got {value!r}")
