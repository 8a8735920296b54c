"""Where the package keeps what can be made again: converted checkpoints, compiled programs."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_root() -> Path:
    """$MGNP_JAX_CACHE, else `mgnp_jax` in the user's cache folder; it need not exist yet."""
    default = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("MGNP_JAX_CACHE") or Path(default) / "mgnp_jax")


def keep_compilations() -> None:
    """Lets the next run of the same shapes start without compiling, for programs.

    The folder is `xla` under the package's cache ($MGNP_JAX_CACHE); JAX's own variable
    JAX_COMPILATION_CACHE_DIR chooses another.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    # Smaller ones are compiled faster than they are read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
