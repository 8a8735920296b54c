"""Layers whose tokens see only those shortly before them, as config.json says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.values import count, flag, size
from mgnp_jax.types import MgnpError

_KINDS = ("full_attention", "sliding_attention")

LATER_KEYS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
"""What `read_later_windows` reads beside sizes of the model."""


def read_windows(
    raw: Mapping[str, Any], layers: int, context: int, by_default: Sequence[bool]
) -> tuple[int, ...]:
    """How many tokens each layer sees, see `ModelConfig.windows`.

    Args:
      raw: the parsed config.json; `layer_types` and `sliding_window` are read.
      layers: L.
      context: longest prompt in tokens; a window as long is none.
      by_default: [L] which layers have a window where `layer_types` does not say.

    Raises:
      MgnpError: if either is not of its kind, or layers have a window whose size is not said.
    """
    kinds = raw.get("layer_types")
    if kinds is None:
        kinds = [_KINDS[has] for has in by_default]
    listed = isinstance(kinds, list) and len(kinds) == layers
    if not listed or any(kind not in _KINDS for kind in kinds):
        raise MgnpError(
            f"config.json has 'layer_types' = {shown(kinds)}, wanted {' or '.join(_KINDS)} for "
            f"each of the {layers} layers"
        )
    if _KINDS[1] not in kinds:
        return ()
    if raw.get("sliding_window") is None:
        raise MgnpError(
            f"config.json has 'layer_types' = {shown(kinds)}, but no 'sliding_window' that says "
            "how many tokens such a layer sees (or 'use_sliding_window' turns it off)"
        )
    window = size(raw, "sliding_window")
    return tuple(window * (kind == _KINDS[1]) for kind in kinds) if window < context else ()


def read_later_windows(raw: Mapping[str, Any]) -> tuple[int, ...]:
    """The same where layers from `max_window_layers` on have one, if windows are turned on at all.

    Args:
      raw: the parsed config.json; `LATER_KEYS`, `num_hidden_layers` and
        `max_position_embeddings` are read.

    Raises:
      MgnpError: for a key that is not of its type and range.
    """
    layers, used = size(raw, "num_hidden_layers"), flag(raw, "use_sliding_window", False)
    said = {**raw, "sliding_window": raw.get("sliding_window", 4096) if used else None}
    first = count(raw, "max_window_layers", 28)
    windowed = [said["sliding_window"] is not None and i >= first for i in range(layers)]
    return read_windows(said, layers, size(raw, "max_position_embeddings"), windowed)


def read_window(raw: Mapping[str, Any], default: int | None) -> tuple[int, ...]:
    """The same where all layers have one window, or none has.

    Args:
      raw: the parsed config.json; `sliding_window` is read.
      default: where it is missing; None for none.

    Raises:
      MgnpError: if it is neither a size nor null.
    """
    window = raw.get("sliding_window", default)
    layers, context = size(raw, "num_hidden_layers"), size(raw, "max_position_embeddings")
    if window is None:
        return ()
    window = size({"sliding_window": window}, "sliding_window")
    return (window,) * layers if window < context else ()


def write_window(model_config: ModelConfig) -> dict[str, Any]:
    """What `read_window` reads, in config.json's words."""
    return {"sliding_window": model_config.windows[0] if model_config.windows else None}


def write_windows(model_config: ModelConfig) -> dict[str, Any]:
    """What `read_windows` reads, in config.json's words."""
    windows = model_config.windows or (0,) * model_config.layers
    return {
        "layer_types": [_KINDS[window > 0] for window in windows],
        "sliding_window": max(windows) or None,
    }
