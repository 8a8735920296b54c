"""Known ground truth: does a method leave out nodes that provably cannot matter?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from mgnp_jax.files import write_whole
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edge_graph import nodes_by_edges
from mgnp_jax.masks.granularities import (
    ATTENTION_HEADS,
    ATTENTION_NEURONS,
    GRANULARITIES,
    MLP_HIDDEN,
)
from mgnp_jax.masks.hierarchy import downwards
from mgnp_jax.masks.levels import EDGE, level_of
from mgnp_jax.methods.discover import discover
from mgnp_jax.methods.protocol import CIRCUITS
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model, load_model
from mgnp_jax.report.decoys import decoys_table
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.runs.decoy_config import DecoyConfig
from mgnp_jax.runs.decoy_model import Widened, with_decoys
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.measuring import evaluate_with_bar
from mgnp_jax.runs.states import States
from mgnp_jax.runs.stopping import Stop
from mgnp_jax.tasks import load_task
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks, MgnpError, plain_json

PARTS = ("without", "with")
"""Folders of the two circuits."""


def nested(ranking: Masks) -> dict[str, np.ndarray]:
    """A ranking by which a node is kept: no greater than that of the block and head it is in.

    Args:
      ranking: log-alpha or scores, float arrays by granularity.
    """
    own = {name: np.asarray(leaf) for name, leaf in ranking.items()}
    return downwards(own, np.minimum)


def auc(kept: np.ndarray, decoys: np.ndarray) -> float:
    """Chance that a node that is kept is ranked above a decoy, ties counted half.

    Args:
      kept: [N] log-alpha or scores of nodes that matter.
      decoys: [M] of nodes that cannot.
    """
    ranked = np.sort(decoys)
    below = np.searchsorted(ranked, kept, "left") + np.searchsorted(ranked, kept, "right")
    return float(below.mean() / (2 * len(ranked)))


def decoys(config: DecoyConfig, console: Console) -> dict[str, Any]:
    """Runs the comparison.

    Args:
      config: what to compare.
      console: where to report.

    Returns:
      The figures, as in the JSON file.
    """
    with at_work(config.folder) as stop:
        return _decoys(config, config.folder, stop, console)


def _decoys(config: DecoyConfig, out: Path, stop: Stop, console: Console) -> dict[str, Any]:
    model = load_model("gpt2-mini")
    data = load_task(
        config.task, model.tokenizer, config.seed, prefix=config.prefix, limits=model.config
    )
    test = data.test.of_pairs(slice(config.test_prompts))
    wide = with_decoys(
        model,
        heads=config.decoy_heads,
        hidden=config.decoy_hidden,
        layers=config.decoy_layers,
        written=config.decoy_weight,
        seed=config.seed,
    )
    # First, so that a folder that does not serve is refused before anything is computed.
    methods = {part: _of_part(config.config, part) for part in PARTS}
    found = []
    for (part, method), each in zip(methods.items(), (model, wide.model)):
        told = f"Finding the circuit of {config.task} in {each.name} by {method.name}"
        console.print(told, highlight=False)
        circuit = _find(config.seed, method, each, data, out / part, stop, console)
        found.append((circuit, evaluate_with_bar(each, circuit, test, console)))
    (plain, alone), (circuit, beside) = found
    result: dict[str, Any] = {
        "task": config.task,
        "method": config.config.name,
        "settings": plain_json(dataclasses.asdict(config)),
        "seed": config.seed,
        "level": level_of(circuit.masks).name,
        "ranks": _ranking(circuit) is not None,
        "seconds": dict(zip(PARTS, (c.metadata["training"]["seconds"] for c, _ in found))),
        "kl": dict(zip(PARTS, (alone["kl"], beside["kl"]))),
        "granularities": compared(model.config, plain, wide, circuit),
    }
    console.print(decoys_table(result).rich())
    write_figures(config, result)
    console.print(f"Saved to {out} (decoys.json)", highlight=False, markup=False)
    return result


def write_figures(config: DecoyConfig, result: Any) -> None:
    """Writes decoys.json, and the file that was asked for.

    Args:
      config: says where.
      result: the figures.
    """
    text = json.dumps(plain_json(result), indent=2, allow_nan=False)
    for file in (config.folder / "decoys.json", *filter(None, (config.json,))):
        write_whole(file, text + "\n")


def _of_part(method: Any, part: str) -> Any:
    """The method, its other circuits those of another comparison's same model."""
    folders = {name: getattr(method, name, None) for name in CIRCUITS}
    own = {name: Path(folder) / part for name, folder in folders.items() if folder is not None}
    for name, folder in own.items():
        if not folder.is_dir():
            raise MgnpError(
                f"--{name} must be the folder of a comparison with decoys, which holds a circuit "
                f"of the model {part} decoys, and there is no {folder}; make one by python -m "
                "experiments.decoys with the same task, seed and decoys"
            )
    return dataclasses.replace(method, **own) if own else method


def _find(
    seed: int,
    method: Any,
    model: Model,
    data: TaskData,
    folder: Path,
    stop: Stop,
    console: Console,
) -> Circuit:
    """Searches with a bar, or goes on."""
    with (
        TrainingProgress(getattr(method, "steps", None), console) as progress,
        contextlib.closing(
            States(folder, stop=stop, say=lambda text: progress({"text": text}))
        ) as states,
    ):
        key = jax.random.key(seed)
        return discover(key, model, data, method, on_record=progress, saves=states)


def _ranking(circuit: Circuit) -> Masks | None:
    return circuit.scores or circuit.log_alpha


def compared(
    model_config: ModelConfig, plain: Circuit, wide: Widened, circuit: Circuit
) -> dict[str, dict[str, Any]]:
    """Decoys kept, others kept, and how well the ranking tells them apart.

    Args:
      model_config: of the model without decoys.
      plain: its circuit.
      wide: the model with decoys.
      circuit: its circuit.

    Returns:
      Counts and AUC by granularity; no AUC where the method ranks nothing. Of edges, those of the
      heads and MLPs that they go through, whole.
    """
    c = model_config
    own = {ATTENTION_HEADS: c.heads, ATTENTION_NEURONS: c.heads, MLP_HIDDEN: c.mlp_width}
    level = level_of(circuit.masks)
    kept, alone = level.nodes(wide.model.config, circuit.masks), level.nodes(c, plain.masks)
    ranking = _ranking(circuit)
    ranks: dict[str, Any] = {}
    if ranking is not None:
        of_edges = level is EDGE
        ranks |= nodes_by_edges(wide.model.config, ranking) if of_edges else nested(ranking)
    found = {}
    for name in GRANULARITIES:
        mask, decoy = np.asarray(kept[name]), wide.decoys[name]
        needed = np.asarray(alone[name])
        area = None
        if name in ranks and needed.any() and decoy.any():
            real = np.asarray(ranks[name])[wide.real]
            real = real[:, : own[name]] if name in own else real
            area = auc(real[needed], np.asarray(ranks[name])[decoy])
        found[name] = {
            "decoys": int(decoy.sum()),
            "decoys_kept": int((mask & decoy).sum()),
            "real_kept": int((mask & ~decoy).sum()),
            "kept_without": int(needed.sum()),
            "auc": area,
        }
    return found
