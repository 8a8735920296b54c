"""So many nodes or edges, by a ranking that is known: which circuit is asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from mgnp_jax.masks.edge_graph import edges_between, heads_used
from mgnp_jax.masks.edges import READERS, Graph, edge_count
from mgnp_jax.masks.granularities import ATTENTION_HEADS
from mgnp_jax.masks.ranking import RANKING, above, all_the_way, largest_above, share_of
from mgnp_jax.masks.selection import check_size, largest, strongest, strongest_edges
from mgnp_jax.types import Masks, MgnpError

SMALLEST, TRIES = 1e-4, 10
"""Share that a search for a circuit begins at, and how many it looks at: to about one per cent."""

Found = TypeVar("Found")


def of_size(
    scores: Masks,
    graph: Graph | None,
    *,
    keep: float | None = None,
    edges: int | None = None,
    heads: int | None = None,
    ranking: dict[str, Any] | None = None,
    own: Masks | None = None,
) -> Masks:
    """The largest circuit of a ranking that is no larger than asked for.

    Where nodes are ranked together, fewer heads may be asked for beside another size: all heads but
    the highest leave, and more of the rest stays.

    Args:
      scores: float by granularity or by kind of reader; higher is kept longer.
      graph: of the model; wanted where `edges` is asked of nodes.
      keep: share of the edges; of the heads and of the MLP hidden neurons; or of the prunable
        parameters, where nodes are ranked together.
      edges: number of edges.
      heads: number of heads.
      ranking: what the circuit says of a ranking of all nodes together; None if it is none.
      own: what rises with each node's own number in such a ranking; as for `largest_above`.

    Returns:
      Bool arrays of the same kinds; of nodes, the smallest if none is as small.

    Raises:
      MgnpError: if the size is out of range, several are given that do not go together, the
        highest heads are more than may be beside another size, or the circuit does not say what it
        takes to tell.
    """
    _check({"keep": keep, "edges": edges, "heads": heads}, ranking)
    if set(scores) == set(READERS):
        total = sum(int((np.asarray(leaf) > -np.inf).sum()) for leaf in scores.values())
        most = round(keep * total) if keep is not None else edges
        if most is not None:
            return strongest_edges(scores, lambda masks: edge_count(masks) <= most)
        return strongest_edges(scores, lambda masks: heads_used(masks) <= (heads or 0))
    if ranking is None and edges is None:
        share = keep if heads is None else heads / np.size(scores[ATTENTION_HEADS])
        return strongest(scores, min(share or 0.0, 1.0))
    if keep is None and edges is None:
        assert heads is not None
        return largest_above(scores, functools.partial(_has_heads, heads), own)
    if graph is None or (graph.layers, graph.heads) != np.shape(scores[ATTENTION_HEADS]):
        others = "keep or heads" if ranking is None else "heads alone"
        raise MgnpError(f"the circuit does not say of what model it is; pass {others}")
    fits: Callable[[Masks], bool]
    if edges is not None:
        fits = functools.partial(_has_at_most, edges, graph)
    else:
        assert ranking is not None and keep is not None
        fits = functools.partial(_is_part, keep, share_of(ranking, graph.kv_heads))
    if heads is None:
        return largest(scores, fits, ranking, own)
    few = functools.partial(_has_heads, heads)
    left, own = _with_heads_of(scores, own, heads)
    return largest_above(left, lambda masks: few(masks) and fits(masks), own)


def of_price(
    scores: Masks, price: float, beside: dict[str, Any], ranking: dict[str, Any] | None
) -> Masks:
    """The circuit of the nodes that are kept at a price.

    Args:
      scores: logarithms of prices by granularity.
      price: above 0.
      beside: sizes that were asked for with it, of which there may be none.
      ranking: what the circuit says of a ranking of all nodes together; None if it is none.

    Returns:
      Bool arrays by granularity.

    Raises:
      MgnpError: for another price, with a size, and for scores that are no prices.
    """
    ranked = ranking is not None and set(scores) != set(READERS)
    if beside or not ranked or not 0 < price < math.inf:
        raise MgnpError(
            "price must be a number above 0, alone, of a circuit that ranks all nodes together "
            f"(metadata {RANKING}); got {price} and {beside or 'nothing else'} of one that "
            f"{'does' if ranked else 'does not'}"
        )
    return above(scores, math.log(price))


def good_enough(
    of_share: Callable[[float], Found],
    max_kl: float | None,
    kl: Callable[[Found], float] | None,
    beside: dict[str, Any],
) -> Found:
    """One of the smallest circuits of a ranking that are as near to the model as wanted.

    All that is ranked is looked at, then `TRIES` sizes, so that with prompts of the validation
    split this costs as many validations.

    Args:
      of_share: share → the circuit of that size.
      max_kl: the most that may be lost, in nats.
      kl: circuit → what it loses.
      beside: sizes that were asked for with it, of which there may be none.

    Returns:
      The circuit.

    Raises:
      MgnpError: if one of the two is missing or a size is given beside them, all that is ranked is
        not enough, or what is lost is not a number.
    """
    if max_kl is None or kl is None or beside:
        raise MgnpError(
            "pass max_kl with kl, which says what a circuit loses, such as lambda each: "
            'mg.evaluate(model, each, data.validation)["kl"], and no size beside them; got '
            f"max_kl={max_kl}, kl={kl}, {beside or 'nothing else'}"
        )
    if not 0 <= max_kl < math.inf:
        raise MgnpError(f"max_kl must be a number of nats from 0 on, got {max_kl}")

    def lost(share: float) -> tuple[Found, float]:
        found = of_share(share)
        if math.isnan(value := float(kl(found))):
            raise MgnpError(
                f"the KL of the circuit of {share:.2%} is not a number; measure it on prompts that "
                "the model can take"
            )
        return found, value

    found, least = lost(1.0)
    if least > max_kl:
        raise MgnpError(
            f"with all that is ranked KL is {least:.4g} nats, wanted at most {max_kl:g}; ask for "
            "more nats, or rank more"
        )
    low, high = math.log(SMALLEST), 0.0
    for _ in range(TRIES):
        middle = (low + high) / 2
        each, value = lost(math.exp(middle))
        if value <= max_kl:
            found, high = each, middle
        else:
            low = middle
    return found


def _check(asked: dict[str, float | None], ranking: dict[str, Any] | None) -> None:
    given = {name: size for name, size in asked.items() if size is not None}
    several = ranking is not None and len(given) == 2 and "heads" in given
    if len(given) != 1 and not several:
        beside = "" if ranking is None else ", or heads beside one of the others"
        told = f"pass one of keep, edges and heads{beside}; got {given or 'none'}"
        raise MgnpError(f"{told} (price and max_kl stand alone)")
    for name, size in given.items():
        if name == "keep":
            check_size(size, None)
        elif size < 1:
            raise MgnpError(f"{name} must be at least 1, got {size}")


def _with_heads_of(
    scores: Masks, own: Masks | None, heads: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The ranking of so many of the highest heads alone, the others below everything."""
    highest = largest_above(scores, functools.partial(_has_heads, heads), own)
    kept = np.asarray(highest[ATTENTION_HEADS])
    if kept.sum() > heads:
        raise MgnpError(
            f"heads must be at least {kept.sum()} with this ranking, got {heads}: its highest "
            "heads have one number, as where heads are not trained"
        )

    def alone(of: Masks) -> dict[str, Any]:
        return {**of, ATTENTION_HEADS: np.where(kept, np.asarray(of[ATTENTION_HEADS]), -np.inf)}

    return all_the_way(alone(scores)), None if own is None else alone(own)


def _has_heads(most: int, masks: Masks) -> bool:
    return int(masks[ATTENTION_HEADS].sum()) <= most


def _is_part(most: float, part: Callable[[Masks], float], masks: Masks) -> bool:
    return part(masks) <= most


def _has_at_most(edges: int, graph: Graph, masks: Masks) -> bool:
    return edge_count(edges_between(graph, masks)) <= edges
