"""The paper's tables over several runs: one column a task, medians and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgnp_jax.masks.controls import jaccard
from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.report.figures import new_figure
from mgnp_jax.report.run_folder import flattened
from mgnp_jax.report.tables import CONTROLS, LABELS, Table
from mgnp_jax.report.text import pictured
from mgnp_jax.types import Masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = Mapping[str, Any]
"""As in results.json."""

PUBLISHED = {
    "ioi": {
        "Attention blocks": "4 / 12",
        "MLP blocks": "12 / 12",
        "Attention heads": "21 / 144",
        "Attention neurons": "907 / 9,216",
        "MLP hidden neurons": "24,564 / 36,864",
        "MLP output neurons": "7,887 / 9,216",
        "Edges": "1,028 / 32,491",
        "Score": "3.203 (model 3.179)",
        "KL, nats": "0.608",
    },
    "gt": {
        "Attention blocks": "5 / 12",
        "MLP blocks": "5 / 12",
        "Attention heads": "28 / 144",
        "Attention neurons": "1,701 / 9,216",
        "MLP hidden neurons": "4,570 / 36,864",
        "MLP output neurons": "3,520 / 9,216",
        "Edges": "1,265 / 32,491",
        "Score": "0.391 (model 0.371)",
        "KL, nats": "0.006",
    },
    "gp": {
        "Attention blocks": "5 / 12",
        "MLP blocks": "3 / 12",
        "Attention heads": "37 / 144",
        "Attention neurons": "1,702 / 9,216",
        "MLP hidden neurons": "1,333 / 36,864",
        "MLP output neurons": "1,411 / 9,216",
        "Edges": "1,948 / 32,491",
        "Score": "2.615 (model 2.620)",
        "KL, nats": "0.491",
    },
}
"""The paper's circuits of GPT-2 small: scores and KL of its table 2, nodes and edges counted from
tables 4 to 6. Its table 1 has fewer MLP neurons for IOI (12,300 hidden, 1,329 output)."""


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Median, and the least and the most where there are several.

    Args:
      values: of every seed.
      form: how one is written.
    """
    middle = form(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form(min(values))} – {form(max(values))})"


def _median_of(runs: Sequence[Results], read: Callable[[Results], float], digits: int = 3) -> str:
    return spread([read(run) for run in runs], lambda value: f"{value:z.{digits}f}")


def sizes_table(runs: Mapping[str, Sequence[Results]], *, published: bool) -> Table:
    """Table 1 over seeds: nodes, parameters and edges kept for each task.

    Args:
      runs: results of every seed, by task.
      published: whether to put the paper's circuits of GPT-2 small beside.
    """
    rows = []
    for name, label in LABELS.items():
        cells = []
        for task in runs.values():
            counts = [run["sizes"][name]["active"] for run in task]
            total = task[0]["sizes"][name]["total"]
            cells.append(f"{spread(counts, lambda n: f'{n:,.0f}')} / {total:,}")
        rows.append((label, *cells))
    cells = []
    for task in runs.values():
        counts = [run["edges"]["active"] for run in task]
        gone = statistics.median(run["edges"]["sparsity"] for run in task)
        total = task[0]["edges"]["total"]
        cells.append(f"{spread(counts, lambda n: f'{n:,.0f}')} / {total:,}, {gone:.2f} % gone")
    rows.append(("Edges", *cells))
    rows.append(
        (
            "Compression",
            *(
                _median_of(task, lambda run: run["parameters"]["compression_ratio"], 2)
                for task in runs.values()
            ),
        )
    )
    return _table("Table 1. What is kept: median (least – most) over seeds", rows, runs, published)


def faithfulness_table(runs: Mapping[str, Sequence[Results]], *, published: bool) -> Table:
    """Table 2 over seeds: the circuits beside the model.

    Args:
      runs: results of every seed, by task.
      published: whether to put the paper's circuits of GPT-2 small beside.
    """

    def of(read: Callable[[Results], float], digits: int = 3) -> list[str]:
        return [_median_of(task, read, digits) for task in runs.values()]

    rows = [
        ("Model's score", *of(lambda run: run["base"]["score"])),
        ("Score", *of(lambda run: run["circuit"]["score"])),
        ("Score off by", *of(lambda run: abs(run["circuit"]["score"] - run["base"]["score"]))),
        ("Model's accuracy", *of(lambda run: run["base"]["accuracy"])),
        ("Accuracy", *of(lambda run: run["circuit"]["accuracy"])),
        ("KL, nats", *of(lambda run: run["circuit"]["kl"])),
    ]
    own = sorted({k for task in runs.values() for k in task[0]["circuit"] if k.startswith("kl_")})
    for name in own:
        cells = [
            _median_of(task, lambda run, name=name: run["circuit"][name], 4)
            if name in task[0]["circuit"]
            else "–"
            for task in runs.values()
        ]
        rows.append((f"{name}, nats", *cells))
    for name, label in CONTROLS.items():
        rows.append(
            (
                f"KL: {label[0].lower()}{label[1:]}",
                *of(lambda run, name=name: run["controls"][name]["kl"]),
            )
        )
    rows.append(("Search, s", *of(lambda run: run["training"]["seconds"], 0)))
    title = "Table 2. Faithfulness on test prompts: median (least – most) over seeds"
    return _table(title, rows, runs, published)


def _table(
    title: str,
    rows: list[tuple[str, ...]],
    runs: Mapping[str, Sequence[Results]],
    published: bool,
) -> Table:
    columns = ["", *(f"{task}, {_seeds(len(found))}" for task, found in runs.items())]
    if published:
        columns += [f"{task}, paper" for task in runs]
        rows = [
            (*row, *(PUBLISHED.get(task, {}).get(row[0], "–") for task in runs)) for row in rows
        ]
    return Table(title=title, columns=tuple(columns), rows=tuple(rows))


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def overlap_table(circuits: Mapping[tuple[str, int], Masks]) -> Table:
    """Jaccard overlap of every two circuits: between seeds, and between tasks.

    Args:
      circuits: masks by task and seed.
    """
    keys = list(circuits)
    rows = []
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            shared = jaccard(circuits[a], circuits[b])
            pair = f"{a[0]} seed {a[1]} – {b[0]} seed {b[1]}"
            rows.append((pair, *(f"{shared[name]:.2f}" for name in LABELS)))
    return Table(
        title="Overlap of circuits: nodes in both over nodes in either",
        columns=("", *LABELS.values()),
        rows=tuple(rows),
    )


def rows_of(runs: Mapping[str, Sequence[Results]]) -> list[dict[str, Any]]:
    """Every figure of every run, one flat row each, for a CSV file.

    Args:
      runs: results of every seed, by task.
    """
    return [flattened(run) for task in runs.values() for run in task]


def trade_off_figure(runs: Mapping[str, Sequence[Results]], title: str) -> Figure:
    """Every circuit's KL against the share of heads that it keeps.

    Args:
      runs: results of every seed, by task.
      title: above the picture.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for task, found in runs.items():
        heads = [run["sizes"][ATTENTION_HEADS] for run in found]
        axes.scatter(
            [100 * h["active"] / h["total"] for h in heads],
            [run["circuit"]["kl"] for run in found],
            label=pictured(task),
        )
    axes.set(xlabel="% of heads kept", ylabel="KL(model ‖ circuit), nats", title=pictured(title))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
