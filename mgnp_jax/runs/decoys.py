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
from mgnp_jax.methods import DEFAULT
from mgnp_jax.methods.discover import discover
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model, load_model
from mgnp_jax.report.progress import TrainingProgress
from mgnp_jax.report.tables import LABELS, Table
from mgnp_jax.runs.config import check_counts, checked_method, named_after
from mgnp_jax.runs.decoy_model import Widened, with_decoys
from mgnp_jax.runs.folder import at_work
from mgnp_jax.runs.measuring import evaluate_with_bar
from mgnp_jax.runs.states import States
from mgnp_jax.runs.stopping import Stop
from mgnp_jax.tasks import load_task
from mgnp_jax.tasks.task import TaskData
from mgnp_jax.types import Masks, MgnpError, plain_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoyConfig:
    """Finds a circuit with and without decoys and compares the two."""

    task: str = "ioi"
    """Built-in task."""
    decoy_heads: int = 4
    """Decoy heads in each layer of gpt2-mini."""
    decoy_hidden: int = 256
    """Decoy MLP neurons in each layer."""
    decoy_layers: int = 2
    """Decoy layers: after the first layers, one each."""
    decoy_weight: float = 0.1
    """Size of a decoy's output weights over that of the other nodes'."""
    prefix: str | None = None
    """As for experiments.run."""
    seed: int = 0
    """Of prompts, method and decoys."""
    test_prompts: int | None = 2000
    """Measure on the first so many test prompts only."""
    out: Path | None = None
    """Folder for the two circuits and decoys.json, by default one under runs/; a circuit that is
    there is not searched again, and a search that was stopped is gone on with."""
    json: Path | None = None
    """Where to write the figures, too."""
    method: str = ""
    """How circuits are found, by name; decides which further flags there are."""
    config: Any = DEFAULT()
    """The method's own."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_counts(self.seed, self.test_prompts)
        if min(self.decoy_heads, self.decoy_hidden, self.decoy_layers, self.decoy_weight) < 0:
            raise MgnpError(
                "--decoy-heads, --decoy-hidden, --decoy-layers and --decoy-weight must not be "
                "negative"
            )
        object.__setattr__(self, "method", checked_method(self.method, self.config))


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
    name = f"decoys-{config.task}{named_after(config.method)}-seed{config.seed}"
    out = config.out or Path("runs") / name
    with at_work(out) as stop:
        return _decoys(config, out, stop, console)


def _decoys(config: DecoyConfig, out: Path, stop: Stop, console: Console) -> dict[str, Any]:
    model = load_model("gpt2-mini")
    data = load_task(
        config.task, model.tokenizer, config.seed, prefix=config.prefix, limits=model.config
    )
    test = data.test.take(slice(config.test_prompts))
    wide = with_decoys(
        model,
        heads=config.decoy_heads,
        hidden=config.decoy_hidden,
        layers=config.decoy_layers,
        written=config.decoy_weight,
        seed=config.seed,
    )
    found = []
    for part, each in (("without", model), ("with", wide.model)):
        console.print(f"Finding the circuit of {config.task} in {each.name}")
        circuit = _find(config, each, data, out / part, stop, console)
        found.append((circuit, evaluate_with_bar(each, circuit, test, console)))
    (plain, alone), (circuit, beside) = found
    result: dict[str, Any] = {
        "task": config.task,
        "method": config.config.name,
        "settings": plain_json(dataclasses.asdict(config)),
        "seed": config.seed,
        "kl": {"without": alone["kl"], "with": beside["kl"]},
        "granularities": compared(model.config, plain, wide, circuit),
    }
    console.print(_table(result).rich())
    text = json.dumps(plain_json(result), indent=2, allow_nan=False)
    for file in (out / "decoys.json", *filter(None, (config.json,))):
        write_whole(file, text + "\n")
    console.print(f"Saved to {out} (decoys.json)", highlight=False, markup=False)
    return result


def _find(
    config: DecoyConfig, model: Model, data: TaskData, folder: Path, stop: Stop, console: Console
) -> Circuit:
    """Searches with a bar, or goes on."""
    with (
        TrainingProgress(getattr(config.config, "steps", None), console) as progress,
        contextlib.closing(
            States(folder, stop=stop, say=lambda text: progress({"text": text}))
        ) as states,
    ):
        key = jax.random.key(config.seed)
        return discover(key, model, data, config.config, on_record=progress, saves=states)


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
    ranking = circuit.log_alpha or circuit.scores
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


def _table(result: dict[str, Any]) -> Table:
    rows = [
        (
            LABELS[name],
            f"{row['decoys_kept']:,} of {row['decoys']:,}",
            f"{row['real_kept']:,}",
            f"{row['kept_without']:,}",
            "–" if row["auc"] is None else f"{row['auc']:.4f}",
        )
        for name, row in result["granularities"].items()
    ]
    kl = result["kl"]
    return Table(
        title=(
            f"{result['task']}, {result['method']}, seed {result['seed']}: KL {kl['with']:z.4f}, "
            f"without {kl['without']:z.4f}"
        ),
        columns=("Granularity", "Decoys kept", "Others kept", "Kept without decoys", "AUC"),
        rows=tuple(rows),
    )
