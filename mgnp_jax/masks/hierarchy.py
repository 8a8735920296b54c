"""What the hierarchy of `granularities.TABLE` means for a tree of masks, chances or log-alpha.

Two passes over the table say all of it: from parents to children, and from children to parents.
Extraction, complement, compaction and the ranking of decoys are made of these.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mgnp_jax.masks.granularities import NEURONS, TABLE, mask_shapes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.types import Masks, MgnpError

Tree = dict[str, Any]
Combine = Callable[[Any, Any], Any]


def downwards(tree: Tree, combine: Combine) -> Tree:
    """Lets every node know of those that contain it.

    Args:
      tree: arrays by granularity.
      combine: (a node's value, its parent's as it is by now) → the node's new value.

    Returns:
      Arrays by granularity; others (the embedding's) as they are.
    """
    tree = dict(tree)
    for name, kind in TABLE.items():
        if kind.parent is not None:
            tree[name] = combine(tree[name], tree[kind.parent][..., None])
    return tree


def upwards(tree: Tree, combine: Combine, over: Callable[[Any], Any]) -> Tree:
    """Lets every node know of what it contains.

    Args:
      tree: arrays by granularity.
      combine: (a node's value, what one kind of its children come to) → the node's new value.
      over: children's values [..., children] → what they come to [...].

    Returns:
      Arrays by granularity; others (the embedding's) as they are.
    """
    tree = dict(tree)
    for name, kind in reversed(TABLE.items()):
        if kind.parent is not None:
            tree[kind.parent] = combine(tree[kind.parent], over(tree[name]))
    return tree


def consistent(masks: Tree) -> Tree:
    """`apply_hierarchy` on NumPy arrays or traced ones.

    Args:
      masks: bool arrays by granularity.
    """
    masks = downwards(masks, lambda own, parent: own & parent)
    masks = upwards(masks, lambda own, any_child: own & any_child, lambda child: child.any(-1))
    return downwards(masks, lambda own, parent: own & parent)


@jax.jit
def apply_hierarchy(masks: Masks) -> Masks:
    """Closes every gate that can no longer change the network's function.

    Downwards: a closed block closes its heads, neurons, hidden and output gates; a closed
    head its neurons. Upwards: a head without neurons closes; an attention block without
    heads, an MLP block without hidden or without output neurons closes.

    Args:
      masks: bool arrays by granularity.

    Returns:
      Bool arrays by granularity; the same function of the prompts, applied twice the same.
    """
    return consistent(masks)


def check_acting(masks: Masks, what: str, stacklevel: int) -> None:
    """Says of masks that open gates change nothing, where that may not be meant.

    A node acts if all that contains it is open and something of each kind that it contains is.
    Closing a block is a short way to close what is in it, and closing all that is in one a way to
    close a block, so of single ones nothing is said; but a head without neurons was forgotten.

    Args:
      masks: bool arrays by granularity.
      what: what to call them.
      stacklevel: of the warning; 2 is the caller's line.

    Raises:
      MgnpError: if gates are open and no node acts.

    Warns:
      UserWarning: if gates of a kind are open and none of them acts, or if heads are open that
        have no neurons.
    """
    given = {name: np.asarray(masks[name], bool) for name in TABLE}
    acting = consistent(given)
    idle = {name: given[name] if not acting[name].any() else np.zeros(()) for name in TABLE}
    for name, kind in TABLE.items():
        if kind.parent is not None and TABLE[kind.parent].parent is not None:
            hollow = given[kind.parent] & ~given[name].any(-1)
            idle[kind.parent] = np.logical_or(idle[kind.parent], hollow)
    told = [f"{int(i.sum()):,} {name} ({_needed(name)})" for name, i in idle.items() if i.any()]
    if not told:
        return
    text = f"in {what} gates are open that change nothing, because others are closed: " + "; ".join(
        told
    )
    if not any(mask.any() for mask in acting.values()):
        raise MgnpError(
            f"{text}. No node is left; open what they need, too, or pass full_masks(model.config, "
            "0.0) if nothing is to be kept"
        )
    warnings.warn(f"{text}. They count as closed", stacklevel=stacklevel + 1)


def _needed(name: str) -> str:
    """What must be open for a node of a kind to act, in words."""
    above, parent = [], TABLE[name].parent
    while parent is not None:
        above.append(f"their {parent}")
        parent = TABLE[parent].parent
    inside = [f"{n} in them" for n, kind in TABLE.items() if kind.parent == name]
    beside = [
        f"{n} beside them"
        for n, kind in TABLE.items()
        if n != name and name in NEURONS and n in NEURONS and kind.parent == TABLE[name].parent
    ]
    return "they need " + " and ".join([*above, *inside, *beside])


def complement(masks: Masks) -> Masks:
    """The neurons that a circuit leaves out, with the heads and blocks that carry them.

    What an MLP writes passes an output neuron; an MLP of which all hidden or all output
    neurons are kept has no complement.

    Args:
      masks: bool arrays by granularity, consistent with the hierarchy.

    Returns:
      Bool arrays by granularity; the embedding's as it is.
    """
    kept = {name: np.asarray(mask) for name, mask in masks.items()}
    left = {name: ~kept[name] if name in NEURONS else np.ones_like(kept[name]) for name in TABLE}
    return jax.device_put(kept | consistent(left))


def kept_alone(model_config: ModelConfig, name: str, index: tuple[int, ...]) -> Tree:
    """A node with what it needs in order to act, and nothing else.

    That is all that contains it, all that it contains, and all of the other kinds beside it: a
    hidden neuron needs its MLP's outputs.

    Args:
      model_config: the model's shape.
      name: its granularity.
      index: its place there, the layer first.

    Returns:
      Bool NumPy arrays by granularity, consistent with the hierarchy.
    """
    masks = {n: np.zeros(shape, bool) for n, shape in mask_shapes(model_config).items()}
    inside, path, parent = {name}, index, TABLE[name].parent
    for other, kind in TABLE.items():
        if kind.parent in inside:
            inside.add(other)
        beside = kind.parent is not None and kind.parent == parent and other != name
        place = index[:-1] if beside else index
        if beside or other in inside:
            masks[other][place] = True
    while parent is not None:
        path = path[:-1]
        masks[parent][path] = True
        parent = TABLE[parent].parent
    return masks


def chance_of_acting(chance: Tree) -> Tree:
    """How often a node is open together with all that it needs in order to act.

    A node acts if everything that contains it is open and, of every other kind of node beside it
    in the same parent, at least one is: a hidden neuron needs an output neuron.

    Args:
      chance: of each gate's own being open, float arrays by granularity.

    Returns:
      Arrays by granularity, for `NEURONS`: their own and their parents' chances multiplied, and
      the largest one of each kind beside them.
    """
    path = downwards(chance, lambda own, parent: own * parent)
    acting = {}
    for name in NEURONS:
        beside = [n for n in TABLE if n != name and TABLE[n].parent == TABLE[name].parent]
        acting[name] = path[name]
        for other in beside:
            acting[name] = acting[name] * chance[other].max(-1)[..., None]
    return acting


def carriers(neurons: Tree) -> Tree:
    """Every granularity of a choice of neurons: heads and blocks are there that carry any.

    Args:
      neurons: bool arrays by granularity, for `NEURONS`.

    Returns:
      Bool arrays by granularity, consistent with the hierarchy.
    """
    shapes = upwards(
        {name: neurons.get(name, True) for name in TABLE},
        lambda own, any_child: own & any_child,
        lambda child: child.any(-1),
    )
    return downwards(shapes, lambda own, parent: own & parent)
