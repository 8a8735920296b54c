"""A ranking as MIB's leaderboard takes circuits: nine files, each of at most so many edges."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from mgnp_jax.files import write_whole
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.edges import Graph, edge_shapes
from mgnp_jax.masks.levels import check_masks, level_of
from mgnp_jax.masks.mib.files import contents_of, export_mib
from mgnp_jax.masks.mib.layout import graph_edges
from mgnp_jax.masks.of_size import of_size
from mgnp_jax.masks.ranking import RANKING
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.report.text import markdown
from mgnp_jax.types import MgnpError

PER_MILLE = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Most edges that the circuits may have, of a thousand."""


def export_mib_submission(
    circuit: Circuit, model_config: ModelConfig, folder: str | Path
) -> dict[str, int]:
    """Writes the nine binary circuits of MIB's leaderboard, and a page that says what they are.

    They have at most .1, .2, .5, 1, 2, 5, 10, 20 and 50 % of the edges, and each contains those
    before it. Edges are counted as MIB counts them: in the file, where with grouped queries every
    query head has a key and a value of its own, so they are not quite those of
    `circuit.at(keep=…)`. Where no circuit of the ranking is so small, the file keeps nothing.

    Args:
      circuit: of nodes or edges, with scores.
      model_config: of its model.
      folder: new or empty; MIB wants it named after task and model, as `ioi_gpt2`.

    Returns:
      Name of each file → its number of edges.

    Raises:
      MgnpError: if the circuit ranks nothing or is of another model, or the folder is not empty or
        cannot be written.
    """
    if circuit.scores is None:
        raise MgnpError(
            f"a circuit of {circuit.metadata.get('method', 'this method')} has one size only: it "
            "ranks nothing (scores is None); export it alone with export_mib, or find one with a "
            "method that ranks"
        )
    check_masks(model_config, circuit.masks, "the masks of the circuit")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MgnpError(f"{folder} is not an empty folder; pass a new one, nothing was written")
    total = int(graph_edges(model_config).sum())
    counts: dict[str, int] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for size in PER_MILLE:
            name = f"{size / 10:g}-percent.json"
            part, counts[name] = _largest(circuit, model_config, total * size // 1000)
            export_mib(part, model_config, folder / name)
        write_whole(folder / "README.md", _page(circuit, counts, total))
    except OSError as error:
        raise MgnpError(f"{folder} cannot be written: {error.strerror or error}") from None
    return counts


def _largest(circuit: Circuit, model_config: ModelConfig, limit: int) -> tuple[Circuit, int]:
    """The largest circuit that has no more edges in a file, and how many it has there."""
    assert circuit.scores is not None
    graph = Graph.of(model_config)

    def of(count: int) -> tuple[Circuit, int]:
        if not count:
            shapes = edge_shapes(model_config).items()
            masks = jax.device_put({name: np.zeros(shape, bool) for name, shape in shapes})
        else:
            ranking = circuit.metadata.get(RANKING)
            scores, own = circuit.scores or {}, circuit.log_alpha
            masks = of_size(scores, graph, edges=count, ranking=ranking, own=own)
            masks = level_of(masks).edges(model_config, masks)
        found = Circuit(masks=masks, metadata={})
        return found, int(contents_of(found, model_config).edges.sum())

    # Without grouped queries the first try is right.
    if (found := of(limit))[1] <= limit:
        return found
    best, least, most = of(0), 0, limit
    while most - least > 1:
        middle = (least + most) // 2
        found = of(middle)
        if found[1] <= limit:
            best, least = found, middle
        else:
            most = middle
    return best


def _page(circuit: Circuit, counts: dict[str, int], total: int) -> str:
    """What the folder's README.md says."""
    told = {name: circuit.metadata.get(name) for name in ("task", "model", "method")}
    origin = ", ".join(f"{name} {markdown(str(value))}" for name, value in told.items() if value)
    rows = "\n".join(
        f"| `{name}` | {total * size // 1000:,} | {count:,} | {100 * count / total:.3f} |"
        for (name, count), size in zip(counts.items(), PER_MILLE)
    )
    level = level_of(circuit.masks).name
    return f"""# Nine circuits for MIB's leaderboard

From one ranking of {level}s ({origin or "it does not say where it is from"}), each circuit the
largest that has no more edges than MIB allows, and part of the next. Edges are counted as the files
have them, {total:,} in the whole model, every query head with a key and a value of its own. A
circuit of nodes is the edges between them.

| file | edges at most | edges | % |
|---|---|---|---|
{rows}

The leaderboard wants one such folder for each task and model, named after them, as `ioi_gpt2`; it
takes the circuits from the files by `in_graph`, in the order of their numbers of edges.
"""
