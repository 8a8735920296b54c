"""A circuit: which nodes are kept. Extraction, saving, loading."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mgnp_jax.checkpoint import load_trees, save_trees
from mgnp_jax.masks.checks import METADATA, check_metadata, check_trees
from mgnp_jax.masks.edges import Graph
from mgnp_jax.masks.granularities import as_bool
from mgnp_jax.masks.hard_concrete import is_open
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.masks.notebook import as_html, as_line
from mgnp_jax.masks.of_size import good_enough, of_price, of_size
from mgnp_jax.masks.ranking import RANKING
from mgnp_jax.masks.selection import largest
from mgnp_jax.types import AblationValues, Masks, MgnpError, checksum, plain_json

TREES = ("masks", "log_alpha", "scores", "votes", "ablation_values")
"""What a saved circuit may hold; masks it must."""


@jax.jit
def binarise(log_alpha: Masks) -> Masks:
    """Equation 8, then the hierarchy both ways.

    Args:
      log_alpha: float arrays by granularity.

    Returns:
      Bool arrays by granularity; True is kept.
    """
    return apply_hierarchy(jax.tree.map(is_open, log_alpha))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Circuit:
    """The nodes or edges that do a task, and where they came from.

    Attributes:
      masks: bool arrays by granularity, consistent with the hierarchy, or by kind of reader, see
        `masks.edges`; True is kept.
      metadata: JSON dict: method and its config, model, task, prompts, figures.
      log_alpha: float32 arrays by granularity, from which the masks were taken, at a price of 1
        where there is one for each size; None where the method trains no gates.
      scores: float32 arrays by granularity, where the method ranks nodes; higher is kept longer.
      votes: float32 arrays by granularity, in [0, 1], where several rankings were learned: in how
        many of them a node is in the circuit that is no larger than this one, as a share.
      ablation_values: constants that pruned nodes are given; None for the corrupted run's values.
    """

    masks: Masks
    metadata: dict[str, Any]
    log_alpha: Masks | None = None
    scores: Masks | None = None
    votes: Masks | None = None
    ablation_values: AblationValues | None = None

    def at(
        self,
        *,
        keep: float | None = None,
        edges: int | None = None,
        heads: int | None = None,
        price: float | None = None,
        max_kl: float | None = None,
        kl: Callable[[Circuit], float] | None = None,
    ) -> Circuit:
        """The circuit of another size by the same ranking.

        Args:
          keep: share in (0, 1]: of the edges; of the prunable parameters, where the ranking is of
            all nodes together; else of the heads and of the MLP hidden neurons.
          edges: instead, so many edges at most.
          heads: instead, so many heads at most; where all nodes are ranked together, also beside
            one of the others: then the highest heads, with as much of the rest as fits.
          price: instead, where all nodes are ranked together: what is kept at this price, above 0.
          max_kl: instead, one of the smallest circuits that lose at most so many nats, at least 0.
            KL need not fall with every node that is added: a smaller one may do, too.
          kl: with it, circuit → what it loses, such as
            `lambda each: mg.evaluate(model, each, data.validation)["kl"]`.

        Returns:
          The circuit, nested in larger ones with as many heads asked for; without figures, which
          are of the other size.

        Raises:
          MgnpError: if the circuit's method ranks nothing, sizes are given that do not go
            together, or all that is ranked is not good enough.
        """
        asked = {"keep": keep, "edges": edges, "heads": heads}
        given = {name: value for name, value in asked.items() if value is not None}
        scores, said = self._ranking(), self.metadata.get(RANKING)
        if max_kl is not None or kl is not None:
            beside = given if price is None else {**given, "price": price}
            found = good_enough(lambda share: self.at(keep=share), max_kl, kl, beside)
            return found._resized(found.masks, {"max_kl": max_kl, **found.metadata["at"]})
        if price is not None:
            return self._resized(of_price(scores, price, given, said), {"price": price})
        graph = Graph.said(self.metadata.get("graph"))
        masks = of_size(scores, graph, ranking=said, own=self.log_alpha, **given)
        return self._resized(masks, given)

    def within(self, fits: Callable[[Masks], bool], at: dict[str, Any]) -> Circuit:
        """The largest circuit of the same ranking that fits, by any measure of size.

        Args:
          fits: whether masks are small enough; true of all within those of which it is.
          at: what was asked for, for the metadata.

        Returns:
          The circuit, as `at` returns it; of nodes, the smallest there is if none fits.

        Raises:
          MgnpError: if the circuit's method ranks nothing.
        """
        said = self.metadata.get(RANKING)
        return self._resized(largest(self._ranking(), fits, said, self.log_alpha), at)

    def __repr__(self) -> str:
        """What a shell shows: sizes and figures, where arrays would fill the screen."""
        return as_line(self.masks, self.metadata)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.masks, self.metadata)

    def _ranking(self) -> Masks:
        if self.scores is None:
            raise MgnpError(
                f"a circuit of {self.metadata.get('method', 'this method')} has one size only: it "
                "ranks nothing (scores is None); find another with the size that is wanted"
            )
        return self.scores

    def _resized(self, masks: Masks, at: dict[str, Any]) -> Circuit:
        # What was said of the other size.
        gone = ("figures", "warnings", "validation", "note")
        others = {k: v for k, v in self.metadata.items() if k not in gone}
        return dataclasses.replace(self, masks=masks, votes=None, metadata={**others, "at": at})

    def save(self, path: str | Path) -> None:
        """Writes the circuit as an Orbax checkpoint, with a checksum of arrays and metadata.

        Of several processes of JAX the first writes; in others nothing happens.

        Args:
          path: new or empty folder.

        Raises:
          MgnpError: if the folder holds something already, masks are not binary, an array is of
            another shape than its granularity or has values that are no numbers, or metadata has
            another type or range than `METADATA` and `LEAST` say.
        """
        found = {name: getattr(self, name) for name in TREES}
        trees = {name: tree for name, tree in found.items() if tree is not None}
        trees["masks"] = as_bool(self.masks)
        check_trees("the circuit", trees)
        metadata = plain_json(self.metadata)
        check_metadata("the circuit", metadata, METADATA)
        save_trees(Path(path), trees, {"circuit": metadata, "sha256": checksum(trees, metadata)})


def load_circuit(path: str | Path) -> Circuit:
    """Reads a circuit that `Circuit.save` wrote; safe with one from a stranger.

    Args:
      path: its folder, or a run's folder that has it as `circuit/`.

    Returns:
      The circuit, bit for bit.

    Raises:
      MgnpError: if there is none, arrays or metadata do not match their checksum, or they are not
        what a circuit consists of.
    """
    folder = Path(path)
    if (folder / "circuit").is_dir():
        folder = folder / "circuit"
    trees, saved = load_trees(folder, TREES)
    if isinstance(saved.get("circuit"), dict):
        metadata, wanted = saved["circuit"], saved.get("sha256")
        got = checksum(trees, metadata)
    else:
        # The layout whose checksum is of the arrays alone; nothing else tells what it protects.
        wanted = saved.pop("checksum", None)
        metadata, got = saved, checksum(trees)
    if not isinstance(wanted, str) or "masks" not in trees:
        raise MgnpError(
            f"{folder} holds no circuit; wanted the folder that circuit.save() wrote, or a run's "
            "folder that has it as circuit/"
        )
    if wanted != got:
        raise MgnpError(
            f"{folder}: the checksum of its arrays and metadata is {got[:16]!r}, but "
            f"{wanted[:16]!r} was saved with them; the folder was changed or damaged, find the "
            "circuit again or restore it"
        )
    check_trees(str(folder), trees)
    check_metadata(str(folder), metadata, METADATA)
    constants = trees.pop("ablation_values", None)
    return Circuit(**jax.device_put(trees), ablation_values=constants, metadata=metadata)
