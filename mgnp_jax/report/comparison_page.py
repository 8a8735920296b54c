"""Methods side by side: the picture with every method in it, and the page that explains it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mgnp_jax.report.comparison import AFTER, LARGER, Row, chosen, methods_in
from mgnp_jax.report.figures import new_figure
from mgnp_jax.report.tables import Table
from mgnp_jax.report.text import code, markdown, pictured
from mgnp_jax.tasks.problems import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 1e-2
"""Per cent kept, below which a circuit is drawn at it: the axis has no zero."""

LEAST_KL = 1e-4
"""Nats, the same."""

ACROSS = {
    "edge_sparsity": ("% of the edges gone", lambda gone: max(100 - gone, LEAST)),
    "prunable_kept": ("% of the prunable parameters kept", lambda share: max(100 * share, LEAST)),
}
"""What a circuit's size is, and how it lies on an axis of per cent kept."""

UP = {
    "kl": ("KL(model ‖ circuit), nats", lambda kl: max(kl, LEAST_KL)),
    "accuracy": ("accuracy", float),
    "faithfulness": ("faithfulness", float),
}

EXPLAINED = """\
Circuits are measured on {tests} of their seed, the same for every method,
with binary masks. **Equal edges**: the largest circuit of a method's ranking that has no more
edges than that of {ours} of the same seed; a circuit of nodes has the edges between them.
**Equal prunable parameters**: the same for the share of the parameters within the nodes that are
kept, or that the edges go through, whole. A method that ranks nothing, or some of the edges alone
(those between the nodes of another circuit), has one size, that of its run; {larger} stands
where a circuit is larger than that of {ours}, and is no fair rival. A method that can be asked
for as many nodes or edges as another circuit has was run so, unless it was set otherwise;
the table of circuits as they were run shows that.

Search and peak memory are of one process for each run: of the accelerator's memory where there is
one, else of the process's. Programs that were compiled before are not compiled again, so that the
first run of a shape takes longer; of a search that was stopped and gone on with, the peak is that
of its last part. {after} stands where a method works within the circuit that another search found:
its seconds are those of both searches, its peak is the larger one, and both are unknown where that
circuit's search is.

Curves are of {curves} a seed, at .1, .2, .5, 1, 2, 5, 10, 20, 50 and 100 % of what is ranked:
edges; heads and MLP hidden neurons; or, where nodes of all kinds are ranked together, prunable
parameters. Faithfulness is (score − score of nothing kept) / (the model's − score of nothing kept).
CMD is the mean of |1 − faithfulness| over that range by trapezoids, 0 at best; CPR the mean of
faithfulness, which also grows where circuits overshoot the model; accuracy area that of accuracy.
All three are of the ranking that chose the circuits; of methods that measure effects it goes by
their size unless `signed` is set, where published CPR is of signed ones. Areas are of shares of
what is ranked: those of rankings of nodes and of edges are not comparable with each other, those of
shares of the parameters and of heads and hidden neurons nearly, and a ranking of some edges has
none, since its shares are of another whole. Stars in the picture are the circuits as they were run.

| file | what it is |
|---|---|
| `index.html` | the circuits of the first seed side by side, in a browser |
| `comparison.json` | a row a circuit: `matched` says in what it is as large as that of {ours} |
| `curves.csv` | what the curves are drawn of |
| `METHOD-seedN/` | the run: circuit, results, pictures, its own README.md |
| `matched/METHOD-seedN-edges/`, `-parameters/` | the circuits of equal size |
| `controls.json`, `controls/` | the last table and its circuits, with `--controls` |
| `figures/` | what was measured, kept so that it need not be again |"""
"""What the tables, the picture and the files are."""


def comparison_figure(rows: Sequence[Row], curve: Sequence[Row], title: str) -> Figure:
    """Curves over size and circuits as run, every method's.

    Args:
      rows: as in comparison.json.
      curve: as in curves.csv.
      title: above the panels.
    """
    figure = new_figure(11, 12)
    figure.suptitle(pictured(title))
    panels = figure.subplots(len(UP), len(ACROSS), sharex="col", sharey="row")
    colours = [f"C{i}" for i in range(10)]
    for i, method in enumerate(methods_in(rows)):
        style: dict[str, Any] = {"color": colours[i % 10], "linestyle": "-" if i < 10 else "--"}
        for line, up in zip(panels, UP):
            for axes, across in zip(line, ACROSS):
                _draw(axes, rows, curve, method, across, up, style)
    for line, (label, _) in zip(panels, UP.values()):
        line[0].set_ylabel(label)
    panels[0, 0].set_yscale("log")
    for axes, (label, _) in zip(panels[-1], ACROSS.values()):
        axes.set_xscale("log")
        axes.set_xlabel(label)
    ticks = [100, 10, 1, 0.1, 0.01]
    panels[-1, 0].set_xticks(ticks, [f"{100 - tick:g}" for tick in ticks])
    panels[-1, 1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    curve: Sequence[Row],
    method: str,
    across: str,
    up: str,
    style: dict[str, Any],
) -> None:
    """One method in one panel: its curve, medians over seeds, and its circuits as they were run."""
    place, height = ACROSS[across][1], UP[up][1]
    own = [row for row in curve if row["method"] == method and row[up] is not None]
    line = []
    for keep in dict.fromkeys(row["keep"] for row in own):
        at = [row for row in own if row["keep"] == keep]
        middle = (statistics.median(row[name] for row in at) for name in (across, up))
        line.append(tuple(form(value) for form, value in zip((place, height), middle)))
    if line:
        axes.plot(*zip(*line), marker=".", label=pictured(method), **style)
    points = [row for row in chosen(rows, method, "own") if row[up] is not None]
    axes.scatter(
        [place(row[across]) for row in points],
        [height(row[up]) for row in points],
        marker="*",
        s=70,
        color=style["color"],
        edgecolors="black",
        linewidths=0.5,
        zorder=3,
        label=None if line else pictured(method),
    )


def _counted(counts: Sequence[int], what: str) -> str:
    """How many a seed; of a file or a small vocabulary, seeds may have left different numbers."""
    least, most = min(counts), max(counts)
    return f"{least:,} to {many(most, what)}" if least < most else many(most, what)


def page(
    title: str,
    sentences: Sequence[str],
    tables: Sequence[Table],
    *,
    reference: str,
    command: str,
    test_prompts: Sequence[int],
    curve_prompts: Sequence[int],
) -> str:
    """What the comparison's README.md says.

    Args:
      title: of what is compared.
      sentences: on who wins.
      tables: of the comparison.
      reference: the method whose sizes the others are given.
      command: that made it.
      test_prompts: how many circuits were measured on, for each seed.
      curve_prompts: how many curves were measured on, for each seed.
    """
    told = "\n".join(f"- {markdown(sentence)}" for sentence in sentences)
    shown = "\n\n".join(table.markdown() for table in tables)
    ours = markdown(reference)
    explained = EXPLAINED.format(
        ours=ours,
        larger=LARGER.strip(),
        after=AFTER.strip(),
        tests=_counted(test_prompts, "held-out test prompt"),
        curves=_counted(curve_prompts, "test prompt"),
    )
    again = code("python -m experiments.evaluate --circuit FOLDER")
    return f"""# Methods side by side: {markdown(title)}

{told}

A rival counts here if its circuit is no larger than that of {ours} in every seed; figures are
medians over seeds.

{shown}

![Every method over size](comparison.png)

{explained}

Made by {code(command)}; called again, it does what is missing. Measure a circuit again: {again}
"""
