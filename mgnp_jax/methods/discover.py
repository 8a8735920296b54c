"""The front door of all methods: checks the prompts, finds the circuit, says where it is from."""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import as_bool, check_masks
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.methods import DEFAULT
from mgnp_jax.methods.protocol import Interrupted, Method, OnRecord
from mgnp_jax.metrics.evaluate import check_prompts
from mgnp_jax.models.hub import Model
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import checksum


def discover(
    key: jax.Array,
    model: Model,
    data: TaskData,
    config: Method | None = None,
    *,
    on_record: OnRecord = lambda record: None,
) -> Circuit:
    """Finds the circuit of a task.

    Args:
      key: [] typed key; consumed. The same key gives the same circuit, bit by bit, on
        one machine.
      model: the model; its weights are read only.
      data: training prompts are learned from, validation prompts choose the circuit.
      config: a method's: one of `METHODS`, or any other; node pruning by default.
      on_record: called with a dict whenever the method has something to say.

    Returns:
      The binary circuit.

    Raises:
      MgnpError: for prompts the model cannot take, or a loss that is not a number.
      Interrupted: a `KeyboardInterrupt` that carries the best circuit so far.
    """
    method: Any = DEFAULT() if config is None else config
    for part in (data.train, data.validation):
        check_prompts(model.config, part)
    started = time.perf_counter()
    try:
        circuit = method.find(key, model, data, on_record)
    except Interrupted as stopped:
        training = {**stopped.circuit.metadata.get("training", {}), "interrupted": True}
        metadata = {**stopped.circuit.metadata, "training": training}
        found = dataclasses.replace(stopped.circuit, metadata=metadata)
        raise Interrupted(_with_origin(found, key, model, data, method, started)) from None
    return _with_origin(circuit, key, model, data, method, started)


def _with_origin(
    circuit: Circuit, key: jax.Array, model: Model, data: TaskData, method: Any, started: float
) -> Circuit:
    """The circuit with everything in its metadata that does not depend on the method."""
    training = {
        "seconds": time.perf_counter() - started,
        # Of the process, whatever else it has done; kibibytes, as Linux counts.
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    metadata = {
        "method": method.name,
        # Paths and the like as text.
        "config": json.loads(json.dumps(dataclasses.asdict(method), default=str)),
        "model": model.name,
        "config_hash": model.config.hash(),
        "weights_checksum": checksum(model.params),
        "task": data.name,
        "origin": {
            "source": data.source,
            "seed": data.seed,
            "extra_corruptions": data.extra_corruptions,
            "skip_bad": data.skipped > 0,
            "metric": data.metric,
            "prefix": data.prefix and data.prefix.text,
        },
        "data": data.described(),
        "data_checksum": data.checksum(),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        **circuit.metadata,
    }
    metadata["training"] = training | circuit.metadata.get("training", {})
    check_masks(model.config, circuit.masks, f"the masks of {method.name!r}")
    # Consistent whatever the method made of the hierarchy; the same function of the prompts.
    given = as_bool(circuit.masks)
    masks = apply_hierarchy(given)
    closed = {name: int((given[name] & ~masks[name]).sum()) for name in masks}
    if any(closed.values()):
        told = ", ".join(f"{count:,} {name}" for name, count in closed.items() if count)
        note = f"Closed because what contains them, or all that they contain, is closed: {told}"
        metadata["note"] = "\n".join(filter(None, (metadata.get("note"), note)))
    return dataclasses.replace(circuit, masks=masks, metadata=metadata)
