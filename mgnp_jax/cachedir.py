"""Where the package keeps what can be made again: converted checkpoints, compiled programs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$MGNP_JAX_CACHE, else `mgnp_jax` in the user's cache folder; it need not exist yet."""
    default = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("MGNP_JAX_CACHE") or Path(default) / "mgnp_jax")
