"""Settings of several methods in one command: METHOD.FIELD=VALUE → each method's config."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from mgnp_jax.methods import METHODS
from mgnp_jax.methods.protocol import CIRCUITS, Method
from mgnp_jax.runs.config import method_named
from mgnp_jax.types import MgnpError

HOW = "--set wants METHOD.FIELD=VALUE"

Names = tuple[str, ...]
"""Names of fields, from a config to one that is in it."""


def settings_of(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """What `--set` asks for, its methods and their fields checked.

    Args:
      texts: METHOD.FIELD=VALUE each, FIELD as among the flags of `experiments.run --method
        METHOD`; of two for one field the last counts.

    Returns:
      Values as they were written, by method and field.

    Raises:
      MgnpError: naming the text, and the methods or fields that there are.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        where, equals, value = text.partition("=")
        method, point, field = where.partition(".")
        if not (equals and point and field):
            raise MgnpError(f"{HOW}, such as {next(iter(METHODS))}.steps=100, got {text!r}")
        if method not in METHODS:
            raise MgnpError(f"{HOW}, METHOD one of {', '.join(METHODS)}, got {text!r}")
        field = field.replace("-", "_")
        if field not in (fields := _fields(METHODS[method])):
            raise MgnpError(
                f"{HOW}; the fields of {method} are {', '.join(fields) or 'none'}; got {text!r}"
            )
        found.setdefault(method, {})[field] = value
    return found


def _fields(kind: type[Any]) -> dict[str, tuple[Names, Any]]:
    """Where the fields of a config are and of what type, by the names that flags have."""
    return dict(_walk(kind, (), ()))


def _walk(kind: type[Any], path: Names, named: Names) -> Iterator[tuple[str, tuple[Names, Any]]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        own, *extras = typing.get_args(hints[field.name]) or (hints[field.name],)
        inside = (*path, field.name)
        if dataclasses.is_dataclass(own):
            # Where a config says so, what is in it is named as if it were its own.
            name = () if extras else (field.name,)
            yield from _walk(typing.cast(Any, own), inside, (*named, *name))
        else:
            yield ".".join((*named, field.name)), (inside, hints[field.name])


def configured(method: str, settings: Mapping[str, str], **fixed: Any) -> Method:
    """A method's config: its defaults, but for what was set.

    Args:
      method: its name.
      settings: values as they were written, by field.
      **fixed: values of other fields; what was set counts more.

    Returns:
      The config.

    Raises:
      MgnpError: for a value that its field cannot have, or settings that do not go together.
    """
    kind: Any = method_named(method)
    fields = _fields(kind)
    values: dict[Names, Any] = {(name,): value for name, value in fixed.items()}
    for name, text in settings.items():
        path, hint = fields[name]
        values[path] = _value(f"{method}.{name}", hint, text)
    return _replaced(kind(), values)


def other_circuit(method: str, folder: Path | None) -> dict[str, Path]:
    """The setting by which a method is given another circuit, for `configured`.

    Args:
      method: its name.
      folder: of the circuit; None for none.

    Returns:
      Nothing for a method that takes none.
    """
    fields = {field.name for field in dataclasses.fields(METHODS[method])}  # type: ignore[arg-type]
    asked = [name for name in CIRCUITS if name in fields][:1]
    return {} if folder is None else dict.fromkeys(asked, folder)


def _value(where: str, hint: Any, text: str) -> Any:
    """What a text says, by the rules of the command line; a comma parts several values."""
    holder = dataclasses.make_dataclass("Holder", [("value", hint)])
    several = typing.get_origin(hint) is tuple
    flags = ["--value", *text.split(",")] if several else [f"--value={text}"]
    try:
        of = tyro.conf.FlagConversionOff[holder]  # type: ignore[valid-type]
        # Of some mistakes it tells at length nevertheless.
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(of, args=flags, console_outputs=False).value  # type: ignore
    except SystemExit:
        wanted = hint.__name__ if isinstance(hint, type) else str(hint)
        wanted = wanted.replace("typing.", "").replace("pathlib._local.", "")
        raise MgnpError(f"--set {where} wants {wanted}, got {text!r}") from None


def _replaced(config: Any, values: Mapping[Names, Any]) -> Any:
    """The config with values at paths, all at once, so that each is checked beside the others."""
    now = {path[0]: value for path, value in values.items() if len(path) == 1}
    deeper: dict[str, dict[Names, Any]] = {}
    for path, value in values.items():
        if len(path) > 1:
            deeper.setdefault(path[0], {})[path[1:]] = value
    inner = {name: _replaced(getattr(config, name), own) for name, own in deeper.items()}
    return dataclasses.replace(config, **now, **inner)
