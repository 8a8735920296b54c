"""A run's folder: what lies in it, and the page that explains it."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.checkpoint import writing
from mgnp_jax.files import write_csv, write_whole
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.report.figures import heads_figure, neurons_figure, trade_off
from mgnp_jax.report.tables import (
    Table,
    controls_table,
    curve_table,
    faithfulness_table,
    layer_table,
    size_table,
)
from mgnp_jax.report.text import code, markdown, save_picture
from mgnp_jax.report.votes import votes_tables
from mgnp_jax.tasks.answers import WHOLE
from mgnp_jax.tasks.problems import many
from mgnp_jax.types import Masks, plain_json


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
        **({"answer": WHOLE} if meta["origin"].get("answer") == WHOLE else {}),
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
        "warnings": meta.get("warnings", []),
        "environment": meta.get("environment", {}),
    }
    # What a method may say of its search.
    return results | {k: meta[k] for k in ("validation", "note") if k in meta}


def measured(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of prompts other than the test prompts.

    Args:
      figures: as `evaluate` returned them.
    """
    names = ("score", "accuracy", "kl", "base_score", "base_accuracy", "prompts")
    return {name: figures[name] for name in names}


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


def tables_of(results: Mapping[str, Any], nodes: Masks) -> list[Table]:
    """The tables of a run: tables 1 and 2 of the paper, the controls, and what each layer keeps.

    Args:
      results: as in results.json.
      nodes: of the circuit, by granularity.
    """
    found = [size_table(results), faithfulness_table(results), controls_table(results)]
    if "curve" in results:
        found.append(curve_table(results["curve"], results["controls"]["circuit"]["prompts"]))
    if "votes" in results:
        found += votes_tables(results["votes"])
    return [*found, layer_table(nodes)]


WHOLE_ANSWERS = """Answers are scored whole: the score is the mean log-probability of the right ones
less that of the wrong ones, in nats, however long each is. Their tokens are read one by one, each
after those before it; KL and same top token are means over all places at which one is read.

"""
"""A paragraph on what figures of whole answers are."""


def _left_out(results: Mapping[str, Any]) -> str:
    """A paragraph on the pairs that were left out; empty if none were."""
    data = results["data"]
    because = data.get("left_out_because", {})
    told = "".join(f"\n- {count:,}: {cause}" for cause, count in because.items())
    return (
        f"Left out {many(data['left_out'], 'pair')} (`left-out.txt`):\n{told}\n\n" if told else ""
    )


def write(folder: Path, circuit: Circuit, nodes: Masks, results: Mapping[str, Any]) -> None:
    """Writes circuit, results, pictures and the explaining page, over what there was of them.

    Args:
      folder: the run's folder.
      circuit: the circuit; saved with the figures in its metadata.
      nodes: that it keeps, or that its edges go through, by granularity.
      results: as `results_of` returns them; in the file, figures that are not finite are null.
    """
    save_circuit(folder, circuit)
    title = f"{results['task']} on {results['model']}"
    save_picture(heads_figure(nodes, f"Heads kept: {title}"), folder / "heads.png")
    save_picture(neurons_figure(nodes, f"Neurons kept: {title}"), folder / "neurons.png")
    if curve := results.get("curve"):
        _save_curve(folder, curve, results["base"]["score"], title)
    write_whole(folder / "README.md", _page(folder, nodes, results))
    # Last, so that a folder with results is a whole one.
    text = json.dumps(plain_json(results), indent=2, allow_nan=False)
    write_whole(folder / "results.json", text + "\n")


def _save_curve(folder: Path, curve: Sequence[Mapping[str, Any]], base: float, title: str) -> None:
    """Writes what circuits of every size lose, as rows and as a picture."""
    columns = list(curve[0])
    write_csv(folder / "curve.csv", columns, [[row[name] for name in columns] for row in curve])
    figure = trade_off(
        [100 * row["prunable_kept"] for row in curve],
        [row["kl"] for row in curve],
        [row["score"] / (base or math.nan) for row in curve],
        f"Circuits of every size: {title}",
    )
    save_picture(figure, folder / "curve.png")


def _page(folder: Path, nodes: Masks, results: Mapping[str, Any]) -> str:
    """What the run's README.md says."""
    told = "\n| `curve.csv`, `curve.png` | what circuits of every size lose |"
    curve = told if "curve" in results else ""
    title = markdown(f"{results['task']} on {results['model']}")
    warned = "".join(f"**Warning:** {markdown(text)}\n\n" for text in results["warnings"])
    tables = "\n\n".join(table.markdown() for table in tables_of(results, nodes))
    load = code(f"mgnp_jax.load_circuit({str(folder)!r})", in_table=True)
    again = code(f"python -m experiments.evaluate --circuit {shlex.quote(str(folder))}")
    return f"""# A circuit for {title}

{warned}{tables}

Found by the method {markdown(results["method"])}. Every figure is measured with binary masks on
the held-out test split, if it does not say that it is on training prompts; layers and heads are
counted from 0.

{WHOLE_ANSWERS if results.get("answer") == WHOLE else ""}{_left_out(results)}| file | what it is |
|---|---|
| `index.html` | the circuit to look at, in a browser |
| `circuit/` | the circuit, an Orbax checkpoint: {load} |
| `results.json` | every figure of this page, and more |
| `metrics.jsonl` | what the method said on its way (loss terms, validations), one JSON a line |
| `config.json` | everything that was set |
| `heads.png`, `neurons.png` | what is kept, as pictures |{curve}

Measure it again in a new process: {again}
"""


def save_circuit(folder: Path, circuit: Circuit) -> None:
    """Writes the circuit of a run, instead of one that was there.

    Args:
      folder: the run's folder.
      circuit: the circuit.
    """
    remove_unfinished(folder, "circuit")
    # There is room for the new one before the old one goes.
    arrays = (circuit.masks, circuit.log_alpha, circuit.scores, circuit.votes)
    with writing(folder / "circuit", arrays):
        shutil.rmtree(folder / "circuit", ignore_errors=True)
        circuit.save(folder / "circuit")


def remove_unfinished(folder: Path, name: str) -> None:
    """Removes what a process that died, or a full disk, has left half written.

    Args:
      folder: that it is in; what else is there stays, whoever it belongs to.
      name: pattern of the checkpoints' names.
    """
    for path in folder.glob(f"{name}.orbax-checkpoint-tmp*"):
        shutil.rmtree(path, ignore_errors=True)
