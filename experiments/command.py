"""What the commands share: flags by method, one line instead of a traceback for a mistake."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.cachedir import keep_compilations
from mgnp_jax.passes.memory import give_back_early, said_if_short
from mgnp_jax.passes.sharding import check_device
from mgnp_jax.report.screen import Screen, flush_quietly, show_what_can_be_shown
from mgnp_jax.report.text import printable
from mgnp_jax.runs.flags import parsed
from mgnp_jax.runs.stopping import Stopped
from mgnp_jax.runs.together import as_one_of


def command(
    config_type: type[Any],
    main: Callable[[Any, Console], Any],
    *,
    on_device: bool = True,
    distributed: bool = False,
) -> None:
    """Parses the command line and runs; exits with 2 on a mistake of the user's.

    Ended by Ctrl-C or SIGTERM it exits with 130 or 143, and says how to go on.

    Args:
      config_type: frozen dataclass; its docstrings are the help. If it has a `method`, that
        decides what the flags of its `config` are.
      main: what to run.
      on_device: whether this process computes; else those that it starts do, one at a time.
      distributed: whether `main` knows how to share its work with other processes.
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
        prog = " ".join(_program())
        config, joining = parsed(config_type, sys.argv[1:], prog=prog, distributed=distributed)
        if joining.distributed:
            return as_one_of(joining, main, config)
        if on_device:
            check_device()
        with said_if_short():
            main(config, console)
    except mg.MgnpError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        print(f"{stopped}.", file=sys.stderr, end=" ")
        if stopped.again is not None:
            again = shlex.join([*_program(), *sys.argv[1:], *stopped.again])
            print(f"Go on with:\n  {again}", file=sys.stderr, end="")
        print(file=sys.stderr)
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
