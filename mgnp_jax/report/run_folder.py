"""A run's folder: what lies in it, and the page that explains it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.report.figures import heads_figure, neurons_figure
from mgnp_jax.report.tables import (
    Table,
    controls_table,
    faithfulness_table,
    layer_table,
    size_table,
)
from mgnp_jax.types import MgnpError


def check_free(wanted: Path | None) -> None:
    """Refuses a folder that holds something, before anything is computed.

    Args:
      wanted: the user's choice; None for a numbered default, which is always free.

    Raises:
      MgnpError: if it is a file or not empty.
    """
    if wanted is not None and wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise MgnpError(
            f"--out {wanted} is not an empty folder; nothing was computed or changed. Pass a new "
            "folder, or leave --out away to get a numbered one under runs/"
        )


def new_folder(wanted: Path | None, name: str) -> Path:
    """Makes the folder of a run.

    Args:
      wanted: the user's choice; None for `runs/NAME`, numbered if that is taken.
      name: of the run, for the default.

    Returns:
      A folder that exists and is empty.

    Raises:
      MgnpError: if the user's choice holds something already, or no folder can be made there.
    """
    try:
        return _made(wanted, name)
    except OSError as error:
        raise MgnpError(
            f"no folder for the run can be made at {error.filename} ({error.strerror}); pass --out "
            "FOLDER in a place that can be written to"
        ) from None


def _made(wanted: Path | None, name: str) -> Path:
    if wanted is not None:
        check_free(wanted)
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    for number in range(1, 10_000):
        folder = Path("runs") / (slug if number == 1 else f"{slug}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise MgnpError(f"runs/ holds 9,999 runs named {slug}; clear some or pass --out")


def results_of(
    circuit: Circuit, seed: int, sizes: Mapping[str, Any], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """What results.json says, of any method's circuit.

    Args:
      circuit: as `discover` returned it.
      seed: of prompts and method.
      sizes: as `circuit_sizes` returned them.
      figures: as `evaluate` returned them on the test split.
    """
    known = {"score", "accuracy", "kl", "exact_match", "score_gap", "prompts", "answered"}
    more = [k for k in figures if k not in known and not k.startswith("base_")]
    others = [k for k in more if f"base_{k}" in figures]
    meta = circuit.metadata
    results = {
        "task": meta["task"],
        "model": meta["model"],
        "method": meta["method"],
        "seed": seed,
        "data": meta["data"],
        "prefix": meta["origin"]["prefix"],
        "base": {
            "score": figures["base_score"],
            "accuracy": figures["base_accuracy"],
            "other_scores": {k: figures[f"base_{k}"] for k in others},
        },
        "circuit": {
            **{k: figures[k] for k in ("score", "accuracy", "kl", "exact_match")},
            "score_gap": figures["score_gap"],
            **{k: figures[k] for k in more if k not in others},
            "prompts": figures["prompts"],
            "other_scores": {k: figures[k] for k in others},
        },
        "answered": figures["answered"],
        **sizes,
        "training": meta["training"],
    }
    # What a method may say of its search.
    return results | {k: meta[k] for k in ("validation", "note") if k in meta}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings or results as one level, their names joined by points.

    Args:
      tree: as in config.json or results.json.
      prefix: before every name.
    """
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out |= flattened(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return out


def tables_of(results: Mapping[str, Any], circuit: Circuit) -> list[Table]:
    """The tables of a run: tables 1 and 2 of the paper, the controls, and what each layer keeps.

    Args:
      results: as in results.json.
      circuit: the circuit.
    """
    return [
        size_table(results),
        faithfulness_table(results),
        controls_table(results),
        layer_table(circuit.masks),
    ]


def _left_out(results: Mapping[str, Any]) -> str:
    """A paragraph on the pairs that were left out; empty if none were."""
    data = results["data"]
    because = data.get("left_out_because", {})
    told = "".join(f"\n- {count:,}: {cause}" for cause, count in because.items())
    return f"Left out {data['left_out']:,} pairs (`left-out.txt`):\n{told}\n\n" if told else ""


def write(folder: Path, circuit: Circuit, results: Mapping[str, Any]) -> None:
    """Writes circuit, results, pictures and the explaining page.

    Args:
      folder: the run's folder.
      circuit: the circuit; saved with the figures in its metadata.
      results: as `results_of` returns them.
    """
    circuit.save(folder / "circuit")
    title = f"{results['task']} on {results['model']}"
    heads_figure(circuit.masks, f"Heads kept: {title}").savefig(folder / "heads.png", dpi=150)
    neurons_figure(circuit.masks, f"Neurons kept: {title}").savefig(folder / "neurons.png", dpi=150)
    tables = "\n\n".join(table.markdown() for table in tables_of(results, circuit))
    training = results["training"]
    stopped = ""
    if training.get("interrupted"):
        stopped = f", **stopped by the user** after {training.get('steps', 'some')} steps"
    page = f"""# A circuit for {title}

{tables}

Found by the method {results["method"]}{stopped}. Every figure is measured with binary masks on the
held-out test split; layers and heads are counted from 0.

{_left_out(results)}| file | what it is |
|---|---|
| `circuit/` | the circuit, an Orbax checkpoint: `mgnp_jax.load_circuit("{folder}")` |
| `results.json` | every figure of this page, and more |
| `metrics.jsonl` | what the method said on its way (loss terms, validations), one JSON a line |
| `config.json` | everything that was set |
| `heads.png`, `neurons.png` | what is kept, as pictures |

Measure it again in a new process: `python -m experiments.evaluate --circuit {folder}`
"""
    (folder / "README.md").write_text(page, encoding="utf-8")
    # Last, so that a folder with results is a whole one.
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
