"""Evidence as the page carries it: what is known of neurons as sparse numbers, shapes looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgnp_jax.files import shown
from mgnp_jax.masks.granularities import NEURONS, mask_shapes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.report.page.packing import sparse
from mgnp_jax.types import MgnpError

EFFECTS = ("removal", "addition")
"""What of the evidence has a tree by granularity."""


def carried(evidence: Mapping[str, Any], model_config: ModelConfig) -> dict[str, Any]:
    """Evidence without the nulls of neurons that nothing is known of.

    Args:
      evidence: as `Evidence.as_page()` returns it.
      model_config: of the model that it should be of.

    Returns:
      The same, in which `removal`, `addition` and `votes` (but for zeros) of neurons, and what
      hidden neurons write, are `places` and `values` of the flattened array.

    Raises:
      MgnpError: if effects have another shape than the model's nodes.
    """
    shapes = mask_shapes(model_config)
    found = dict(evidence)
    for effect in EFFECTS:
        tree = dict(evidence.get(effect) or {})
        for name, figures in tree.items():
            _check_shape(f"{effect} of {name}", figures["score"], shapes.get(name))
            if name in NEURONS:
                tree[name] = {figure: sparse(values) for figure, values in figures.items()}
        found[effect] = tree
    votes = evidence.get("votes") or {}
    found["votes"] = {
        name: sparse(np.where(np.asarray(leaf) > 0, leaf, None)) if name in NEURONS else leaf
        for name, leaf in votes.items()
    }
    writes = {name: dict(part) for name, part in (evidence.get("writes") or {}).items()}
    for name, part in writes.items():
        if name in NEURONS and "direct" in part:
            part["direct"] = sparse(part["direct"])
    return found | {"writes": writes}


def _check_shape(what: str, nested: Any, wanted: tuple[int, ...] | None) -> None:
    got = np.shape(np.asarray(nested, object))
    if got != wanted:
        raise MgnpError(
            f"the evidence is of another model: {what} has the shape {got}, this circuit's is "
            f"{shown(wanted)}; explain this circuit, or pass the folder that the evidence is of"
        )
