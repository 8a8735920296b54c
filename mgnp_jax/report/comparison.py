"""Methods side by side: rows of figures → tables, sentences, and the page. No model needed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mgnp_jax.report.paper import spread
from mgnp_jax.report.tables import Table
from mgnp_jax.tasks.problems import many

Row = Mapping[str, Any]
"""A circuit, as in comparison.json."""

BASES = {"edges": "equal edges", "parameters": "equal prunable parameters"}
"""In what circuits of different methods are made equal."""

LARGER = " ▲"
"""After the name of a method whose circuit is larger than the reference's."""

AFTER = " †"
"""After the name of a method that works within the circuit of another search."""


class Figure(NamedTuple):
    """A figure by which methods are compared.

    Attributes:
      name: in a row.
      better: what a method has that is better, in a sentence.
      sign: 1 where more is better, −1 where less is.
      form: how it is written.
    """

    name: str
    better: str
    sign: int
    form: Callable[[float], str]


FAITHFUL = (
    Figure("kl", "lower KL", -1, "{:z.4f}".format),
    Figure("accuracy", "higher accuracy", 1, "{:z.4f}".format),
)
COSTS = (
    Figure("seconds", "shorter search", -1, "{:,.1f} s".format),
    Figure("peak_mb", "lower peak of memory", -1, "{:,.0f} MB".format),
)


def methods_in(rows: Sequence[Row]) -> list[str]:
    """The methods, in the order in which they come.

    Args:
      rows: of circuits or of curves.
    """
    return list(dict.fromkeys(row["method"] for row in rows))


def chosen(rows: Sequence[Row], method: str, basis: str) -> list[Row]:
    """A method's circuits of all seeds: at the reference's size, or its own if it ranks nothing.

    Args:
      rows: as in comparison.json.
      method: its name.
      basis: one of `BASES`, or "own".
    """
    own = [row for row in rows if row["method"] == method]
    return [row for row in own if row["matched"] == basis] or [
        row for row in own if row["matched"] == "own"
    ]


def median(rows: Sequence[Row], name: str) -> float | None:
    """Median over seeds of a figure; None if a seed lacks it.

    Args:
      rows: of one method.
      name: of the figure.
    """
    values = [row[name] for row in rows]
    return None if not values or None in values else statistics.median(values)


def _spread(rows: Sequence[Row], name: str, form: Callable[[float], str]) -> str:
    values = [row[name] for row in rows]
    return "–" if not values or None in values else spread(values, form)


def size_table(rows: Sequence[Row], basis: str, title: str) -> Table:
    """The paper's table 3 at one size.

    Args:
      rows: as in comparison.json.
      basis: one of `BASES`, or "own".
      title: above it.
    """
    base = {name: median(rows, f"base_{name}") for name in ("score", "accuracy")}
    own = (f"{base['score']:z.3f}", f"{base['accuracy']:z.4f}")
    model = ("(the model)", "0", "100", "–", "–", *own)
    forms = {
        "edge_sparsity": "{:.2f}".format,
        "prunable_kept": lambda share: f"{100 * share:.1f}",
        "heads": "{:,.0f}".format,
        "kl": "{:z.4f}".format,
        "score": "{:z.3f}".format,
        "accuracy": "{:z.4f}".format,
    }
    found = []
    for method in methods_in(rows):
        own = chosen(rows, method, basis)
        mark = "" if basis == "own" or all(row["within"][basis] for row in own) else LARGER
        found.append(
            (f"{method}{mark}", *(_spread(own, name, form) for name, form in forms.items()))
        )
    columns = ("Edges gone %", "Parameters kept %", "Heads", "KL, nats", "Score", "Accuracy")
    return Table(title=title, columns=("", *columns), rows=(model, *found))


def cost_table(rows: Sequence[Row]) -> Table:
    """Time and memory of each method's search, and what its curve comes to.

    Args:
      rows: as in comparison.json.
    """
    figures = [(figure.name, figure.form) for figure in COSTS]
    figures += [(name, "{:z.3f}".format) for name in ("cmd", "cpr", "accuracy_area")]
    found = []
    for method in methods_in(rows):
        own = chosen(rows, method, "own")
        mark = AFTER if any(row["after"] for row in own) else ""
        spreads = (_spread(own, *figure) for figure in figures)
        found.append((f"{method}{mark}", _ranked(own[0]), *spreads))
    columns = ("Ranks", "Search", "Peak memory", "CMD", "CPR", "Accuracy area")
    title = "Time and memory of the search; means over all sizes of its ranking"
    return Table(title=title, columns=("", *columns), rows=tuple(found))


def _ranked(row: Row) -> str:
    """What a method ranks: areas are comparable among those that rank the same."""
    if not row["ranks"]:
        return "–"
    return f"{'' if row['ranks_all'] else 'some '}{row['level']}s"


def layers_table(rows: Sequence[Row]) -> Table:
    """The paper's tables 7 to 9: heads and MLP of each layer that circuits of equal edges use.

    Args:
      rows: as in comparison.json; those of the first seed are shown.
    """
    seed = rows[0]["seed"]
    ours = [row for row in rows if row["seed"] == seed]
    shown = {method: chosen(ours, method, "edges")[0] for method in methods_in(ours)}
    layers = range(len(rows[0]["mlps"]))
    cells = [
        (
            str(layer),
            *(
                f"{row['heads_by_layer'][layer]} {'+ MLP' if row['mlps'][layer] else '–'}"
                for row in shown.values()
            ),
        )
        for layer in layers
    ]
    title = f"As tables 7 to 9: heads used in each layer, and whether its MLP is; seed {seed}"
    return Table(title=title, columns=("Layer", *shown), rows=tuple(cells))


def tables_of(rows: Sequence[Row], reference: str) -> list[Table]:
    """All tables of a comparison.

    Args:
      rows: as in comparison.json.
      reference: the method whose sizes the others are given.
    """
    seeds = len({row["seed"] for row in rows})
    told = f"median (least – most) of {many(seeds, 'seed')}" if seeds > 1 else "one seed"
    found = [
        size_table(rows, basis, f"As table 3, at {name} as {reference}: {told}")
        for basis, name in BASES.items()
    ]
    found.append(size_table(rows, "own", f"As each method was run: {told}"))
    return [*found, cost_table(rows), layers_table(rows)]


def wins(rows: Sequence[Row], reference: str) -> list[str]:
    """Sentences on where a rival is better than the reference, by medians over seeds.

    A rival's circuit counts where it is no larger than the reference's, for every seed.

    Args:
      rows: as in comparison.json.
      reference: a method.
    """
    found = [
        _better(rows, reference, basis, figure, f"At {name}")
        for basis, name in BASES.items()
        for figure in FAITHFUL
    ]
    found += [_better(rows, reference, "own", figure, "As run") for figure in COSTS]
    # Where a rival wins comes first.
    return [text for text, won in sorted(found, key=lambda each: not each[1])]


def _better(
    rows: Sequence[Row], reference: str, basis: str, figure: Figure, where: str
) -> tuple[str, bool]:
    """A sentence on one figure, and whether a rival wins by it."""
    ours = chosen(rows, reference, "own")
    bar = median(ours, figure.name)
    better = []
    for method in methods_in(rows):
        theirs = chosen(rows, method, basis)
        value = median(theirs, figure.name)
        fair = basis == "own" or all(row["within"][basis] for row in theirs)
        if method == reference or not fair or value is None or bar is None:
            continue
        # By as much as can be seen.
        if figure.sign * (value - bar) > 0 and figure.form(value) != figure.form(bar):
            pairs = zip(theirs, ours, strict=True)
            won = sum(figure.sign * (a[figure.name] - b[figure.name]) > 0 for a, b in pairs)
            told = f"{method} {figure.form(value)} (in {won} of {many(len(ours), 'seed')})"
            better.append((-figure.sign * value, told))
    told = f"{reference} ({'unknown' if bar is None else figure.form(bar)})"
    if better:
        named = ", ".join(text for _, text in sorted(better))
        return f"{where}, a {figure.better} than {told}: {named}", True
    return f"{where}, no rival has a {figure.better} than {told}", False
