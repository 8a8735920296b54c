"""What the commands share: flags by method, one line instead of a traceback for a mistake."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.cachedir import keep_compilations
from mgnp_jax.methods import DEFAULT
from mgnp_jax.passes.memory import give_back_early, said_if_short
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.report.screen import Screen, flush_quietly, show_what_can_be_shown
from mgnp_jax.report.text import printable
from mgnp_jax.runs.config import method_named
from mgnp_jax.runs.stopping import Stopped


def command(
    config_type: type[Any], main: Callable[[Any, Console], Any], *, on_device: bool = True
) -> None:
    """Parses the command line and runs; exits with 2 on a mistake of the user's.

    Ended by Ctrl-C or SIGTERM it exits with 130 or 143, and says how to go on.

    Args:
      config_type: frozen dataclass; its docstrings are the help. If it has a `method`, that
        decides what the flags of its `config` are.
      main: what to run.
      on_device: whether this process computes; else those that it starts do, one at a time.
    """
    if "-m" in _program() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    show_what_can_be_shown()
    console = Screen()
    # Else its first words are that PyTorch is missing, which nothing here wants.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_compilations()
    give_back_early()
    try:
        if any(field.name == "method" for field in dataclasses.fields(config_type)):
            config_type = with_method(config_type, sys.argv[1:])
        config = tyro.cli(config_type, prog=" ".join(_program()))
        if on_device:
            check_device()
        with said_if_short():
            main(config, console)
    except mg.MgnpError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        again = shlex.join([*_program(), *sys.argv[1:], *stopped.again])
        print(f"{stopped}. Go on with:\n  {again}", file=sys.stderr)
        raise SystemExit(stopped.code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(1) from None
    finally:
        flush_quietly()


def _program() -> list[str]:
    """How this process was called, without its flags."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["python", *(["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1])]


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
        raise mg.MgnpError(
            f"the method {name} has the settings {', '.join(sorted(own & shared))}, which are "
            "flags of this command already; give them other names"
        )
    return dataclasses.make_dataclass(
        config_type.__name__,
        [
            ("method", Literal[tuple(mg.METHODS)], name),
            ("config", Annotated[method, tyro.conf.arg(name="")], method()),
        ],
        bases=(config_type,),
        namespace={"__doc__": config_type.__doc__},
        frozen=True,
        kw_only=True,
    )
