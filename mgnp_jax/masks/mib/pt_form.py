"""EAP-IG's `.pt`: a dict with `cfg`, names of writers and readers, and matrices, by PyTorch.

Only PyTorch can read it. A stranger's is read with `weights_only`, that is as tensors, numbers,
text, lists and dicts alone; nothing in it is run. MIB's binary circuits may lack `edges_scores`.
Neurons are there coordinates of what a node writes; most of our gates inside heads and MLPs are not
of that kind, so none are written, and a file that leaves any out is refused.
"""

from __future__ import annotations

import importlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.files import replacing, shown
from mgnp_jax.masks.edges import writer_names
from mgnp_jax.masks.mib.layout import (
    MEND,
    Contents,
    cfg_of,
    check_cfg,
    check_whole_nodes,
    column_names,
)
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import MgnpError

OTHER_BYTES = 2**20
"""Most that a file has beside its matrices."""


def _torch() -> Any:
    """PyTorch, which nothing else here wants."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise MgnpError(
            "a .pt file is written and read by PyTorch, which is not installed; install it (pip "
            "install torch), or use a .json file, which says the same"
        ) from None


def write(file: Path, contents: Contents, model_config: ModelConfig) -> None:
    """Writes a file, whole or not at all.

    Args:
      file: where.
      contents: in it.
      model_config: the model's shape.

    Raises:
      MgnpError: if PyTorch is not installed.
    """
    torch = _torch()
    # Where nothing ranks, edges in the circuit rank above the others.
    scores = contents.edges.astype(np.float32) if contents.scores is None else contents.scores
    found = {
        "cfg": cfg_of(model_config),
        "src_nodes": writer_names(model_config),
        "dst_nodes": column_names(model_config),
        "edges_scores": torch.tensor(np.ascontiguousarray(scores)),
        "edges_in_graph": torch.tensor(np.ascontiguousarray(contents.edges)),
        "nodes_in_graph": torch.tensor(contents.nodes),
    }
    if contents.node_scores is not None:
        found["nodes_scores"] = torch.tensor(contents.node_scores)
    # By way of memory: PyTorch's own writer names no reason where a disk is full.
    torch.save(found, written := io.BytesIO())
    with replacing(file) as part:
        part.write_bytes(written.getbuffer())


def read(file: Path, model_config: ModelConfig) -> Contents:
    """Reads a file of anyone's.

    Args:
      file: to be read.
      model_config: of the model that it should be of.

    Returns:
      What it says, without scores of nodes and neurons.

    Raises:
      MgnpError: naming the file and the entry, if PyTorch is not installed, or the file is larger
        than one of this model can be, has other contents than tensors, numbers and text, or is of
        another model.
    """
    torch = _torch()
    writers, readers = writer_names(model_config), column_names(model_config)
    size = len(writers) * (len(readers) + model_config.width + 1) * 9 + OTHER_BYTES
    _check_size(file, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    # What is damaged is reported by many exception types.
    except Exception as error:
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise MgnpError(
            f"{file} cannot be read as tensors, numbers and text ({type(error).__name__}: {told}); "
            f"{MEND}"
        ) from None
    if not isinstance(found, dict):
        raise MgnpError(f"{file} holds {type(found).__name__}, wanted a dict; {MEND}")
    check_cfg(str(file), found.get("cfg"), model_config)
    for name, wanted in (("src_nodes", writers), ("dst_nodes", readers)):
        _check_names(file, name, found.get(name), wanted)
    shape = (len(writers), len(readers))
    edges = _array(torch, file, "edges_in_graph", found, shape, bool)
    nodes = _array(torch, file, "nodes_in_graph", found, shape[:1], bool)
    scores = None
    if "edges_scores" in found:
        scores = _array(torch, file, "edges_scores", found, shape, np.float32)
    if "neurons_in_graph" in found:
        wide = (len(writers), model_config.width)
        neurons = _array(torch, file, "neurons_in_graph", found, wide, bool)
        for index in np.flatnonzero(nodes):
            check_whole_nodes(str(file), writers[index], bool(neurons[index].all()))
    return Contents(edges=edges, scores=scores, nodes=nodes)


def _check_size(file: Path, most: int) -> None:
    """Refuses what is no archive of tensors, or holds more than it should, packed or not."""
    try:
        if not file.is_file():
            raise MgnpError(f"{file} is no plain file, wanted a .pt file; {MEND}")
        size = file.stat().st_size
        if size <= most and not zipfile.is_zipfile(file):
            raise MgnpError(f"{file} is no archive as torch.save makes it; {MEND}")
        if size <= most:
            with zipfile.ZipFile(file) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
    except OSError as error:
        raise MgnpError(f"{file} cannot be read: {shown(str(error))}; {MEND}") from None
    except MgnpError:
        raise
    # A damaged archive raises what it meets.
    except Exception as error:
        raise MgnpError(f"{file} is no whole archive ({type(error).__name__}); {MEND}") from None
    if size > most:
        raise MgnpError(f"{file} holds {size:,} bytes, wanted at most {most:,}; {MEND}")


def _check_names(file: Path, name: str, found: Any, wanted: list[str]) -> None:
    if not isinstance(found, list | tuple) or len(found) != len(wanted):
        raise MgnpError(
            f"{file}: {name} must be a list of {len(wanted):,} names, got {shown(found)}; {MEND}"
        )
    for got, name_wanted in zip(found, wanted):
        if not isinstance(got, str) or got != name_wanted:
            raise MgnpError(
                f"{file}: {name} has {shown(got)} where this model has {name_wanted!r}; {MEND}"
            )


def _array(
    torch: Any, file: Path, name: str, found: dict[str, Any], shape: tuple[int, ...], kind: Any
) -> np.ndarray:
    """A tensor by name as NumPy array of a shape and type; scores finite or NaN."""
    tensor: Any = found.get(name)
    plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
    if not plain or tensor.device.type != "cpu" or tuple(tensor.shape) != shape:
        got = tuple(tensor.shape) if plain else type(tensor).__name__
        raise MgnpError(f"{file}: {name} must be a tensor of shape {shape}, got {got}; {MEND}")
    if tensor.is_complex() or (kind is bool and tensor.dtype != torch.bool):
        raise MgnpError(f"{file}: {name} is of type {tensor.dtype}, wanted {kind.__name__}; {MEND}")
    try:
        wide = torch.bool if kind is bool else torch.float64
        values = tensor.detach().to(wide).resolve_neg().numpy().copy()
    # Tensors come in more kinds than can be named.
    except Exception as error:
        raise MgnpError(
            f"{file}: {name} is no plain tensor ({type(error).__name__}); {MEND}"
        ) from None
    if kind is bool:
        return values
    wrong = np.argwhere(np.abs(values) > np.finfo(kind).max)
    if len(wrong):
        row, column = wrong[0]
        raise MgnpError(
            f"{file}: {name}[{row}, {column}] is {values[row, column]}, wanted a finite number, or "
            f"NaN for none; {MEND}"
        )
    return values.astype(kind)
