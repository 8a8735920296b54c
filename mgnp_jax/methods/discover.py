"""The front door of all methods: checks the prompts, finds the circuit, says where it is from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.circuit import Circuit, load_circuit
from mgnp_jax.masks.edges import Graph
from mgnp_jax.masks.granularities import as_bool
from mgnp_jax.masks.levels import check_masks, level_of
from mgnp_jax.methods import DEFAULT
from mgnp_jax.methods.protocol import CIRCUITS, Interrupted, Method, OnRecord, Resumable, Saves
from mgnp_jax.metrics.evaluate import check_prompts
from mgnp_jax.models.hub import Model
from mgnp_jax.models.weights import weights_checksum
from mgnp_jax.passes.memory import peak_mb
from mgnp_jax.passes.settings import execution_of, that_count
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Record, checksum, plain_json
from mgnp_jax.version import __version__

DEPENDENCIES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
"""Whose versions a result may depend on."""


def discover(
    key: jax.Array,
    model: Model,
    data: TaskData,
    config: Method | None = None,
    *,
    on_record: OnRecord = lambda record: None,
    saves: Saves | None = None,
) -> Circuit:
    """Finds the circuit of a task.

    Args:
      key: [] typed key; consumed. The same key gives the same circuit, bit by bit, on
        one machine.
      model: the model; its weights are read only.
      data: training prompts are learned from, validation prompts choose the circuit.
      config: a method's: one of `METHODS`, or any other; node pruning by default.
      on_record: called with a dict whenever the method has something to say.
      saves: where what is found is put aside, and what the method has on its way if it is
        `Resumable`; called again with the same, it goes on from there. None for nowhere.

    Returns:
      The binary circuit.

    Raises:
      MgnpError: for prompts the model cannot take, a loss that is not a number, or what was put
        aside by another search.
      Interrupted: a `KeyboardInterrupt` that carries the best circuit so far.
    """
    method: Any = DEFAULT() if config is None else config
    for part in (data.train, data.validation):
        check_prompts(model.config, part)
    # Other circuits are read for it, so once.
    settings = _settings(method)
    origin = _origin(key, model, data, method, settings)
    started = time.perf_counter()
    find = method.find
    if saves is not None:
        saves.open(_search(origin, settings), origin["environment"])
        if (found := saves.found()) is not None:
            return found
        started -= saves.seconds
        if isinstance(method, Resumable):
            find = functools.partial(method.find_from, saves=saves)
    try:
        circuit = find(key, model, data, on_record)
    except Interrupted as stopped:
        training = {**stopped.circuit.metadata.get("training", {}), "interrupted": True}
        metadata = {**stopped.circuit.metadata, "training": training}
        found = dataclasses.replace(stopped.circuit, metadata=metadata)
        raise Interrupted(_with_origin(found, model, method, origin, started)) from None
    circuit = _with_origin(circuit, model, method, origin, started)
    if saves is not None:
        saves.finish(circuit)
    return circuit


def circuits_read(method: Any) -> dict[str, str]:
    """Checksums of the masks of other circuits that a method reads.

    Args:
      method: config of one.

    Returns:
      Hex digits by the name of the setting; what is not there any more has none.
    """
    folders = {name: getattr(method, name, None) for name in CIRCUITS}
    # The files of the same circuit differ each time it is saved.
    return {
        name: checksum(load_circuit(folder).masks)
        for name, folder in folders.items()
        if isinstance(folder, Path) and folder.is_dir()
    }


def _settings(method: Any) -> Record:
    """The settings that decide a result, with other circuits as what they are."""
    return plain_json(that_count(method)) | circuits_read(method)


def _search(origin: Record, settings: Record) -> Record:
    """What decides the result of a search, by names that a message may have."""
    return {
        "version of mgnp_jax": __version__,
        "method": origin["method"],
        "settings": settings,
        "model config": origin["config_hash"],
        "weights": origin["weights_checksum"],
        "prompts": origin["data_checksum"],
        # Checksums are of arrays; it is a function.
        "metric": origin["origin"]["metric"] or None,
        "key": origin["key"],
    }


def _environment(model: Model, method: Any, settings: Record) -> Record:
    """What a result depends on beside seed, prompts and weights: versions, device, settings."""
    device = jax.devices()[0]
    text = json.dumps([method.name, settings], sort_keys=True).encode()
    trained_in = execution_of(method).precision
    return {
        "versions": {
            "mgnp_jax": __version__,
            **{name: importlib.metadata.version(name) for name in DEPENDENCIES},
            "python": platform.python_version(),
        },
        "device": {"kind": device.device_kind, "platform": device.platform},
        "precision": {"weights": trained_in, "gates": "float32", "figures": "float32"},
        "method_config_hash": hashlib.sha256(text).hexdigest(),
        "model_config_hash": model.config.hash(),
    }


def _origin(key: jax.Array, model: Model, data: TaskData, method: Any, settings: Record) -> Record:
    """Everything in a circuit's metadata that is known before it is found."""
    return {
        "method": method.name,
        "config": plain_json(dataclasses.asdict(method)),
        "environment": _environment(model, method, settings),
        "model": model.name,
        "graph": Graph.of(model.config)._asdict(),
        "config_hash": model.config.hash(),
        "weights_checksum": weights_checksum(model.params),
        "task": data.name,
        "origin": {
            "source": data.source,
            "seed": data.seed,
            "extra_corruptions": data.extra_corruptions,
            "train_prompts": data.train_prompts,
            "skip_bad": data.skipped > 0,
            "metric": data.metric,
            "answer": data.answer,
            "prefix": data.prefix and data.prefix.text,
        },
        "data": data.described(),
        "data_checksum": data.checksum(),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
    }


def _with_origin(
    circuit: Circuit, model: Model, method: Any, origin: Record, started: float
) -> Circuit:
    """The circuit, consistent, with everything in its metadata that is not the method's."""
    training = {
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_mb(),
    }
    metadata = {**origin, "level": level_of(circuit.masks).name, **circuit.metadata}
    metadata["training"] = training | circuit.metadata.get("training", {})
    check_masks(model.config, circuit.masks, f"the masks of {method.name!r}")
    # Consistent whatever the method made of the hierarchy; the same function of the prompts.
    given = as_bool(circuit.masks)
    level = level_of(given)
    masks = level.consistent(given)
    closed = {name: int((given[name] & ~masks[name]).sum()) for name in masks}
    if any(closed.values()):
        told = ", ".join(f"{count:,} {name}" for name, count in closed.items() if count)
        note = f"{level.closed_because}: {told}"
        metadata["note"] = "\n".join(filter(None, (metadata.get("note"), note)))
    return dataclasses.replace(circuit, masks=masks, metadata=metadata)
