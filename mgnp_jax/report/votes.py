"""How often nodes of a circuit are kept by the rankings whose mean it is cut from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import ATTENTION_HEADS, GRANULARITIES
from mgnp_jax.report.tables import LABELS, Table


def votes_of(circuit: Circuit, rankings: int) -> dict[str, Any]:
    """What results.json says of a circuit's votes.

    Args:
      circuit: with votes.
      rankings: how many were learned.

    Returns:
      `rankings`; by granularity how many nodes are `kept`, how many of these `all` rankings keep,
      and the `mean` share of the rankings that keep one; under `heads` names by number of votes.
    """
    assert circuit.votes is not None
    found: dict[str, Any] = {"rankings": rankings}
    for name in GRANULARITIES:
        votes = np.asarray(circuit.votes[name])[np.asarray(circuit.masks[name])]
        mean = float(votes.mean()) if votes.size else None
        found[name] = {"kept": votes.size, "all": int((votes == 1).sum()), "mean": mean}
    heads = np.asarray(circuit.masks[ATTENTION_HEADS])
    counts = np.rint(rankings * np.asarray(circuit.votes[ATTENTION_HEADS])).astype(int)
    found["heads"] = {
        str(votes): [f"a{n}.h{h}" for n, h in np.argwhere(heads & (counts == votes)).tolist()]
        for votes in range(rankings, -1, -1)
    }
    return found


def votes_tables(votes: Mapping[str, Any]) -> list[Table]:
    """Kept nodes by how many rankings keep them.

    Args:
      votes: as `votes_of` has them.
    """
    rankings = votes["rankings"]
    rows = []
    for name in GRANULARITIES:
        said = votes[name]
        mean = "–" if said["mean"] is None else f"{100 * said['mean']:.1f}"
        rows.append((LABELS[name], f"{said['kept']:,}", f"{said['all']:,}", mean))
    columns = ("Granularity", "Kept", "By all rankings", "By a ranking, mean %")
    title = f"How sure is each node? {rankings} rankings, each of half of the training prompts"
    named = tuple((f"{k} of {rankings}", ", ".join(v)) for k, v in votes["heads"].items() if v)
    heads = Table(title="Heads kept, by votes", columns=("Votes", "Heads"), rows=named)
    return [Table(title=title, columns=columns, rows=tuple(rows)), heads]
