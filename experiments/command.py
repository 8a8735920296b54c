"""What the commands share: one line instead of a traceback for a user's mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

import mgnp_jax as mg
from mgnp_jax.models.smollm2 import cache_root

Config = TypeVar("Config")


def command(config_type: type[Config], main: Callable[[Config, Console], Any]) -> None:
    """Parses the command line and runs; exits with 2 on a mistake of the user's.

    Args:
      config_type: frozen dataclass; its docstrings are the help.
      main: what to run.
    """
    console = Console()
    # Else its first words are that PyTorch is missing, which nothing here wants.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_compilations()
    try:
        main(tyro.cli(config_type), console)
    except mg.MgnpError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def keep_compilations() -> None:
    """Lets the next run of the same shapes start without compiling.

    The folder is `xla` under the package's cache ($MGNP_JAX_CACHE); JAX's own variable
    JAX_COMPILATION_CACHE_DIR chooses another.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    # Smaller ones are compiled faster than they are read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def check_counts(seed: int | None, test_prompts: int | None) -> None:
    """Refuses a seed below 0 and a count of prompts below 1.

    Args:
      seed: of prompts and gates, if given.
      test_prompts: how many to measure on, if given.

    Raises:
      MgnpError: naming the flag.
    """
    if seed is not None and seed < 0:
        raise mg.MgnpError(f"--seed must be at least 0, got {seed}")
    if test_prompts is not None and test_prompts < 1:
        raise mg.MgnpError(f"--test-prompts must be at least 1, got {test_prompts}")


def evaluate_with_bar(
    model: mg.Model, circuit: mg.Circuit, test: mg.Batch, console: Console
) -> dict[str, Any]:
    """`mg.evaluate` with a progress bar.

    Args:
      model: the model.
      circuit: the circuit.
      test: held-out prompts.
      console: where to draw.

    Returns:
      The metrics.
    """
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Measuring on test prompts", total=len(test))
        return mg.evaluate(
            model, circuit, test, on_progress=lambda prompts: bar.advance(task, prompts)
        )
