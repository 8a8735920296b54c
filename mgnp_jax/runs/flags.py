"""Flags of the commands that depend on others, or that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.runs.config import method_named
from mgnp_jax.runs.joining import Joining
from mgnp_jax.types import MgnpError


def with_method(config_type: type[Any], arguments: Sequence[str]) -> type[Any]:
    """The same flags, and those of the method that the command line names.

    Args:
      config_type: frozen dataclass with `method` and `config`.
      arguments: of the command line.

    Raises:
      MgnpError: for an unknown method, or one whose settings are named as flags of the command.
    """
    name = DEFAULT.name
    for i, argument in enumerate(arguments):
        if argument == "--method" and i + 1 < len(arguments):
            name = arguments[i + 1]
        elif argument.startswith("--method="):
            name = argument.removeprefix("--method=")
    method = method_named(name)
    own, shared = ({f.name for f in dataclasses.fields(c)} for c in (method, config_type))  # type: ignore[arg-type]
    if own & shared:
        raise MgnpError(
            f"the method {name} has the settings {', '.join(sorted(own & shared))}, which are "
            "flags of this command already; give them other names"
        )
    return dataclasses.make_dataclass(
        config_type.__name__,
        [
            ("method", Literal[tuple(METHODS)], name),
            ("config", Annotated[method, tyro.conf.arg(name="")], method()),
        ],
        bases=(config_type,),
        namespace={"__doc__": config_type.__doc__},
        frozen=True,
        kw_only=True,
    )


def parsed(
    config_type: type[Any], arguments: Sequence[str], *, prog: str, distributed: bool
) -> tuple[Any, Joining]:
    """What a command line says.

    Args:
      config_type: frozen dataclass; its docstrings are the help. If it has a `method`, that
        decides what the flags of its `config` are.
      arguments: of the command line.
      prog: the program's name.
      distributed: whether several processes may share the command's work.

    Returns:
      The config, and how the processes find each other, which is not the config's.

    Raises:
      MgnpError: for a mistake of the user's.
    """
    asked = config_type
    if any(field.name == "method" for field in dataclasses.fields(config_type)):
        asked = with_method(config_type, arguments)
    if distributed:
        field = ("joining", Annotated[Joining, tyro.conf.arg(name="")], Joining())
        namespace = {"__doc__": config_type.__doc__}
        asked = dataclasses.make_dataclass(
            *(config_type.__name__, [field]),
            **{"bases": (asked,), "namespace": namespace, "frozen": True, "kw_only": True},
        )
    found = tyro.cli(asked, prog=prog, args=arguments)
    # Of a type that other processes know, too.
    own = {f.name: getattr(found, f.name) for f in dataclasses.fields(config_type)}
    return config_type(**own), getattr(found, "joining", Joining())
