"""Pytrees and a JSON dict ↔ a folder on disk. The only file that imports Orbax."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from mgnp_jax.types import MgnpError


def save_trees(path: Path, trees: Mapping[str, Any], metadata: dict[str, Any]) -> None:
    """Writes named pytrees and their metadata; the folder appears whole or not at all.

    Args:
      path: folder to make; must not exist or must be empty.
      trees: name → pytree of arrays.
      metadata: JSON-serialisable.

    Raises:
      MgnpError: if the folder holds something already.
    """
    from orbax.checkpoint import v1 as ocp

    path = path.resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MgnpError(f"{path} is not an empty folder; pass a new one, nothing was written")
    # NumPy leaves are read back on any machine, whatever devices wrote them.
    host = jax.tree.map(np.asarray, dict(trees))
    with _without_its_warnings():
        ocp.save_checkpointables(str(path), host, overwrite=path.exists(), custom_metadata=metadata)


def load_trees(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_trees` wrote.

    Args:
      path: its folder.

    Returns:
      The trees by name (nested dicts of NumPy arrays), and the metadata.

    Raises:
      MgnpError: if there is no such checkpoint or it cannot be read.
    """
    from orbax.checkpoint import v1 as ocp

    path = path.resolve()
    if not path.is_dir():
        raise MgnpError(f"{path} is not a folder; wanted one that circuit.save() wrote")
    try:
        with _without_its_warnings():
            metadata = cast(dict[str, Any], ocp.checkpointables_metadata(str(path)).custom_metadata)
            trees = cast(dict[str, Any], ocp.load_checkpointables(str(path)))
    # Orbax reports a damaged folder by many exception types.
    except Exception as error:
        raise MgnpError(
            f"{path} cannot be read as a saved circuit ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); wanted the folder "
            "that circuit.save() wrote (in a run's folder: circuit/)"
        ) from error
    return jax.tree.map(np.asarray, trees), dict(metadata or {})


@contextlib.contextmanager
def _without_its_warnings() -> Iterator[None]:
    """Keeps what Orbax logs out of the user's terminal; the user's own records pass as before.

    Tracebacks, too: what goes wrong is raised beside them.
    """
    logger = logging.getLogger("absl")

    def theirs(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(theirs)
    try:
        yield
    finally:
        logger.removeFilter(theirs)


@contextlib.contextmanager
def writing(path: Path, trees: Any) -> Iterator[None]:
    """Says in a line if something cannot be written, a full disk before anything is.

    Args:
      path: of what is going to be written in this context.
      trees: pytree of its arrays.

    Raises:
      MgnpError: naming the path and the reason.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(trees))
            # And what the files have beside the arrays.
            os.posix_fallocate(probe.fileno(), 0, 2 * size + 2**18)
        yield
    except MgnpError:
        raise
    # Orbax reports trouble by many exception types.
    except Exception as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MgnpError(
            f"{path} cannot be written ({told}); what was written before it is whole: mend that "
            "and go on (--resume)"
        ) from error
