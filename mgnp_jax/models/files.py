"""Which files of a folder are the checkpoint, and what tensors lie in them. safetensors only.

Nothing is read but headers: a tensor is read when it is asked for, after its shape has been
compared with what the config implies.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import safetensors

from mgnp_jax.files import read_object, shown
from mgnp_jax.types import MgnpError

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"

# safetensors' names for the dtypes that weights come in; others keep safetensors' name.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file: shape and dtype as an array has them; slices of it read it.

    The file is opened for each reading: what has been read of one that is mapped counts as memory
    of the process as long as it is.

    Attributes:
      file: that it is in.
      start: byte of the file at which it begins.
      name: of the tensor.
      shape: of the tensor.
      dtype: name of its dtype, numpy's where weights come in it.
    """

    file: Path
    start: int
    name: str
    shape: tuple[int, ...]
    dtype: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads it."""
        return np.asarray(self[tuple(slice(None) for _ in self.shape)], dtype)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of it.

        Args:
          index: a slice for each axis, of steps of one.

        Raises:
          MgnpError: if the file has changed since it was looked at.
        """
        (low, high, _), *rest = (s.indices(n) for s, n in zip(index, self.shape, strict=True))
        if rest != [(0, n, 1) for n in self.shape[1:]]:
            try:
                with safetensors.safe_open(self.file, framework="numpy") as file:
                    return file.get_slice(self.name)[index]
            except safetensors.SafetensorError as error:
                raise MgnpError(self._changed(str(error))) from None
        # Whole rows lie together: several times as fast as through safetensors.
        shape, dtype = (high - low, *self.shape[1:]), np.dtype(self.dtype)
        before = low * math.prod(self.shape[1:]) * dtype.itemsize
        count = math.prod(shape)
        found = np.fromfile(self.file, dtype, count, offset=self.start + before)
        if len(found) != count:
            raise MgnpError(self._changed(f"{len(found):,} of {count:,} values are there"))
        return found.reshape(shape)

    def _changed(self, why: str) -> str:
        return f"{self.file} has changed while it was read ({shown(why)}); try again"


def weight_files(directory: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Finds the files that transformers would read: the single one, else those of the index.

    Args:
      directory: the checkpoint.

    Returns:
      The files, and what is to be said about others.

    Raises:
      MgnpError: if there is none, a shard is missing or lies elsewhere, or transformers would
        read something that is not supported.
    """
    if (directory / ADAPTER).exists():
        raise MgnpError(
            f"{directory} has {ADAPTER}: transformers would change the weights by that adapter. "
            "Merge it (peft's merge_and_unload, then save_pretrained) and load the result, or "
            f"delete {ADAPTER} to load the weights without it"
        )
    if parts := sorted(directory.glob("shard-*-model-*-of-*.safetensors")):
        raise MgnpError(
            f"{directory} has {shown(parts[0].name)}, of a distributed checkpoint, which "
            "transformers would read; gather it into one with transformers' save_pretrained"
        )
    shards = sorted(directory.glob("model-*-of-*.safetensors"))
    if (directory / ONE_FILE).is_file():
        files = [directory / ONE_FILE]
        if (directory / INDEX).exists():
            shards.append(directory / INDEX)
    elif (directory / INDEX).is_file():
        files = _indexed(directory)
    else:
        found = sorted(p.name for p in directory.iterdir())
        listed = ", ".join(shown(name) for name in found[:20]) or "nothing"
        raise MgnpError(
            f"{directory} has neither {ONE_FILE} nor {INDEX} (found: {listed}"
            f"{' …' if len(found) > 20 else ''}). Weights are read from safetensors only, never "
            "from pickle (pytorch_model.bin, .pt); convert with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )
    other = [p.name for p in shards if p not in files]
    if not other:
        return files, ()
    read = shown(files[0].name) if len(files) == 1 else f"the {len(files)} shards of {INDEX}"
    return files, (
        f"{directory} holds a second set of weights ({shown(other[0])}"
        f"{f' and {len(other) - 1} more' if len(other) > 1 else ''}): {read} is read, as "
        "transformers does",
    )


def _indexed(directory: Path) -> list[Path]:
    """The shards that the index names, all inside the folder."""
    named = read_object(directory / INDEX).get("weight_map")
    if not (isinstance(named, dict) and named and all(isinstance(n, str) for n in named.values())):
        raise MgnpError(
            f"{directory / INDEX} is no index of shards: wanted an object with a weight_map, from "
            f"tensor names to file names, got {shown(named)}; fetch it again"
        )
    root = directory.resolve()
    if root.parent.name == "snapshots":
        # The hub's cache keeps the files of all snapshots in one place and links to them.
        root = root.parent.parent
    files = []
    for name in sorted(set(named.values())):
        path, file = PurePath(name), directory / name
        outside = not name or path.is_absolute() or ".." in path.parts
        if not outside and not file.is_file():
            raise MgnpError(
                f"{directory / INDEX} names the shard {shown(name)}, which is not there; copy it "
                "beside the index"
            )
        if outside or not file.resolve().is_relative_to(root):
            raise MgnpError(
                f"{directory / INDEX} names {shown(name)}, which is outside the folder; wanted "
                "the names of files beside the index"
            )
        files.append(file)
    return files


def open_tensors(files: Sequence[Path]) -> dict[str, Stored]:
    """Opens weight files and lists what lies in them.

    Args:
      files: in safetensors' format.

    Returns:
      Tensor name → where it lies.

    Raises:
      MgnpError: if a file is not safetensors, or two have a tensor of one name.
    """
    tensors: dict[str, Stored] = {}
    homes: dict[str, Path] = {}
    for path in files:
        try:
            file = safetensors.safe_open(path, framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise MgnpError(
                f"{path} cannot be read as safetensors ({shown(str(error))}); the file may "
                "be cut short or a Git LFS pointer: fetch it again"
            ) from None
        starts = _starts(path)
        for name in file.keys():
            if name in tensors:
                raise MgnpError(
                    f"the tensor {shown(name)} is both in {homes[name].name} and in {path.name}; "
                    "fetch the checkpoint again"
                )
            part = file.get_slice(name)
            dtype = str(part.get_dtype())
            dtype = _DTYPES.get(dtype, dtype)
            tensors[name] = Stored(path, starts[name], name, tuple(part.get_shape()), dtype)
            homes[name] = path
    return tensors


def _starts(path: Path) -> dict[str, int]:
    """Where tensors begin in a file that safetensors has found to be one."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return {
        n: 8 + size + each["data_offsets"][0] for n, each in header.items() if n != "__metadata__"
    }
