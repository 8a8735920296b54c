"""Pytrees and a JSON dict ↔ a folder on disk. The only file that imports Orbax."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mgnp_jax.files import LARGEST_FILE, read_object, reserve
from mgnp_jax.types import MgnpError

MOST_BYTES = 2**30
"""No circuit is larger: gates and scores of a model of 405 billion parameters take a tenth."""

METADATA = "_CHECKPOINT_METADATA"
"""Orbax's file in each checkpoint."""

DTYPES = ("bool", "bfloat16", "float16", "float32", "float64", "int32", "int64")
"""What arrays may consist of."""


def checked_path(path: Path) -> Path:
    """The whole path of a folder that can hold a checkpoint.

    Args:
      path: the folder, there or not.

    Raises:
      MgnpError: if its name, or that of a folder it is in, has bytes that are no text.
    """
    path = path.resolve()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise MgnpError(
            f"{str(path)!r} has bytes in its name that are not text in UTF-8, in which no "
            "checkpoint can be written or read; pass a folder with another name"
        ) from None
    return path


def save_trees(path: Path, trees: Mapping[str, Any], metadata: dict[str, Any]) -> None:
    """Writes named pytrees and their metadata; the folder appears whole or not at all.

    Of several processes of JAX the first writes, whether or not others call this too: in them
    nothing happens.

    Args:
      path: folder to make; must not exist or must be empty.
      trees: name → pytree of arrays.
      metadata: JSON-serialisable.

    Raises:
      MgnpError: if the folder holds something already, its name is not text, or the metadata is
        larger than `load_trees` reads.
    """
    from orbax.checkpoint import v1 as ocp

    path = checked_path(path)
    if jax.process_index():
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MgnpError(f"{path} is not an empty folder; pass a new one, nothing was written")
    # Half for what Orbax writes beside it.
    if (size := len(json.dumps(metadata))) > LARGEST_FILE // 2:
        raise MgnpError(
            f"the metadata of {path} comes to {size:,} bytes of JSON, wanted at most "
            f"{LARGEST_FILE // 2:,}; keep long lists in a file of their own, nothing was written"
        )
    # NumPy leaves are read back on any machine, whatever devices wrote them.
    host = jax.tree.map(np.asarray, dict(trees))
    # Orbax would wait for the other processes.
    alone = ocp.options.MultiprocessingOptions(active_processes={0})
    if jax.process_count() > 1:
        _ask_no_others()
    with _without_its_warnings(), ocp.Context(multiprocessing_options=alone):
        ocp.save_checkpointables(str(path), host, overwrite=path.exists(), custom_metadata=metadata)


def _ask_no_others() -> None:
    # All processes, for their path, in the midst of what they sum; there is no option against it.
    from orbax.checkpoint.experimental.v1._src.saving import execution

    if not hasattr(execution, "_check_directory_consistency"):
        raise MgnpError(
            "several processes cannot save with this orbax-checkpoint; install 0.12.8, or use one"
        )
    execution._check_directory_consistency = lambda directory: None


def load_trees(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_trees` wrote, which may be anyone's: nothing in it is trusted.

    Arrays are read where Orbax puts them, but without Orbax: it reads before their sizes can be
    looked at, and prints what is damaged from threads of its own.

    Args:
      path: its folder.
      names: of the trees to look for; all that there are by default.

    Returns:
      Those that there are, by name (dicts of NumPy arrays), and the metadata.

    Raises:
      MgnpError: if there is no such checkpoint, it cannot be read, leads out of its folder, or
        says that it holds more than `MOST_BYTES`.
    """
    path = checked_path(path)
    if not path.is_dir():
        raise MgnpError(f"{path} is not a folder; wanted one that circuit.save() wrote")
    if not (path / METADATA).exists():
        raise MgnpError(
            f"{path} holds no circuit; wanted the folder that circuit.save() wrote, or a run's "
            "folder that has it as circuit/"
        )
    try:
        _check_files(path)
        metadata = dict(read_object(path / METADATA)["custom_metadata"])
        there = {folder.name for folder in path.iterdir() if folder.is_dir()}
        wanted = sorted(there if names is None else there & set(names))
        stores = {name: _stores(path / name) for name in wanted}
        # Shapes are known here, and nothing is allocated yet.
        size = sum(s.size * s.dtype.numpy_dtype.itemsize for s in jax.tree.leaves(stores))
        if size > MOST_BYTES:
            raise ValueError(f"its arrays come to {size:,} bytes, more than {MOST_BYTES:,}")
        trees = jax.tree.map(lambda store: np.asarray(store.read().result()), stores)
    # What is damaged is reported by many exception types.
    except Exception as error:
        said = str(error).partition(" [tensorstore_spec")[0].partition("\n")[0]
        raise MgnpError(
            f"{path} cannot be read as a saved circuit ({type(error).__name__}: "
            f"{said[:300] or 'no message'}): it is damaged, or none; wanted the folder as "
            "circuit.save() wrote it"
        ) from None
    return trees, metadata


def _check_files(path: Path) -> None:
    """Refuses what is no plain file, leads out of the folder, or is larger than any circuit."""
    size = 0
    for file in path.rglob("*"):
        if not file.resolve().is_relative_to(path):
            raise ValueError(
                f"{file.name!r} is a link that leads out of the folder; copy the files themselves, "
                "cp -rL"
            )
        if not (file.is_file() or file.is_dir()):
            raise ValueError(f"{file.name!r} is neither a file nor a folder")
        size += file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"its files come to {size:,} bytes, more than {MOST_BYTES:,}")


def _stores(folder: Path) -> dict[str, Any]:
    """The arrays of a tree by name, opened but not read.

    Orbax keeps a tree as one key-value store (OCDBT), an array in it as Zarr 3. Its file driver
    takes no key with `..` in it, so that no store leads out of its folder.
    """
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    files = ts.KvStore.open(base).result()
    found = {}
    for key in sorted(files.list().result()):
        name, _, file = key.decode().rpartition("/")
        if file != "zarr.json":
            continue
        _check_chunks(name, json.loads(files.read(key).result().value))
        spec = {
            "driver": "zarr3",
            "kvstore": {**base, "path": f"{name}/"},
            "fill_missing_data_reads": False,
        }
        found[name] = ts.open(spec, open=True, read=True).result()
    return found


def _check_chunks(name: str, described: Any) -> None:
    """Refuses an array that is not of numbers, or is cut into chunks larger than itself."""
    shape = described["shape"]
    if described["data_type"] not in DTYPES:
        raise ValueError(f"{name} is of type {described['data_type']}")

    def look(part: Any) -> None:
        if isinstance(part, dict):
            chunk = part.get("chunk_shape", shape)
            if len(chunk) != len(shape) or any(c > max(s, 1) for c, s in zip(chunk, shape)):
                raise ValueError(f"{name} has chunks of shape {chunk}, and the shape {shape}")
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                look(each)

    look(described)


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
            reserve(probe.fileno(), path.parent, 2 * size + 2**18)
        yield
    except MgnpError:
        raise
    # Orbax reports trouble by many exception types.
    except Exception as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MgnpError(
            f"{path} cannot be written ({told}); what was written before it is whole: mend that "
            "and go on"
        ) from error
