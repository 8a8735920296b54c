"""How methods tell nodes that cannot matter from others: figures → tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgnp_jax.masks.edge_graph import TOLD_BY_EDGES
from mgnp_jax.masks.levels import EDGE, NODE
from mgnp_jax.report.comparison import AFTER
from mgnp_jax.report.tables import LABELS, Table

Result = Mapping[str, Any]
"""A method's figures, as in its decoys.json."""

NONE = "–"
"""Where there is no figure."""


def decoys_table(result: Result) -> Table:
    """One method: decoys and others kept of every granularity.

    Args:
      result: of the method.
    """
    rows = [
        (
            LABELS[name],
            f"{row['decoys_kept']:,} of {row['decoys']:,}",
            f"{row['real_kept']:,}",
            f"{row['kept_without']:,}",
            _area(row),
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


def methods_tables(results: Sequence[Result]) -> list[Table]:
    """Several methods: AUC, then what is kept, of every granularity; then KL and time.

    Args:
      results: of the methods, at least one, all with the same decoys.
    """
    told = f"{results[0]['task']}, seed {results[0]['seed']}"
    decoys = {name: row["decoys"] for name, row in results[0]["granularities"].items()}
    areas, kept, costs = [], [], []
    for result in results:
        rows, name = result["granularities"], _name(result)
        areas.append((name, _ranks(result), *(_area(row) for row in rows.values())))
        kept.append((name, *(_kept(result, each) for each in rows)))
        figures = [f"{result['kl'][part]:z.4f}" for part in ("with", "without")]
        figures += [f"{result['seconds'][part]:,.1f}" for part in ("with", "without")]
        costs.append((name, *figures))
    counts = (f"{LABELS[name]} (of {count:,})" for name, count in decoys.items())
    return [
        Table(
            title=f"AUC: {told}",
            columns=("", "Ranks", *(LABELS[name] for name in decoys)),
            rows=tuple(areas),
        ),
        Table(
            title=f"Decoys kept / nodes kept without decoys: {told}",
            columns=("", *counts),
            rows=tuple(kept),
        ),
        Table(
            title=f"KL in nats, and seconds of the search, with decoys and without: {told}",
            columns=("", "KL with", "KL without", "Seconds with", "Seconds without"),
            rows=tuple(costs),
        ),
    ]


def notes_on(results: Sequence[Result], reference: str) -> list[str]:
    """What is to be known to read the tables, a sentence or two each.

    Args:
      results: as for `methods_tables`.
      reference: the method whose circuits the others are as large as.
    """
    found = [
        "AUC is the chance that a node that the method itself keeps without decoys is ranked above "
        "a decoy, ties counted half; 0.5 is no better than chance.",
        f"Methods that can be asked for a size keep as many nodes of each granularity, or as many "
        f"edges, as {reference}, unless another was set.",
    ]
    if none := [result["method"] for result in results if not result["ranks"]]:
        found.append(
            f"No AUC of what ranks nothing ({', '.join(none)}): what it keeps is all that it says."
        )
    if any(result["level"] == EDGE.name for result in results):
        found.append(
            "A ranking of edges gives a head or MLP the score of the strongest edge from it, and "
            f"tells no neurons apart ({NONE})."
        )
    if any(result["level"] == NODE.name and result["ranks"] for result in results):
        found.append(
            "A node without a score of its own has that of what contains it, or the highest in it, "
            "as MLP neurons where whole MLPs were removed."
        )
    if within := [result["method"] for result in results if _within(result)]:
        found.append(
            f"{AFTER.strip()} {', '.join(within)}: within the circuit of another search, whose "
            "time is not counted; whatever that leaves out is ranked last."
        )
    return found


def _within(result: Result) -> bool:
    return result["settings"]["config"].get("within") is not None


def _name(result: Result) -> str:
    return f"{result['method']}{AFTER if _within(result) else ''}"


def _ranks(result: Result) -> str:
    return f"{result['level']}s" if result["ranks"] else NONE


def _area(row: Mapping[str, Any]) -> str:
    return NONE if row["auc"] is None else f"{row['auc']:.4f}"


def _kept(result: Result, name: str) -> str:
    row = result["granularities"][name]
    told = result["level"] == NODE.name or name in TOLD_BY_EDGES
    return f"{row['decoys_kept']:,} / {row['kept_without']:,}" if told else NONE
