"""Rotary positions in a config.json: where their base and their scaling stand.

Transformers 4 has `rope_theta` at the top level and `rope_scaling` for what is scaled;
transformers 5 puts both into `rope_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.rotary import RopeScaling
from mgnp_jax.models.values import number, size
from mgnp_jax.types import MgnpError

ORIGINAL, SHARE = "original_max_position_embeddings", "partial_rotary_factor"

# Kinds that are done here → keys that they have beside their base.
_KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "yarn": (
        *"factor attention_factor beta_fast beta_slow mscale mscale_all_dim truncate".split(),
        ORIGINAL,
    ),
}
_LARGEST = 1e30
"""Of any number; the angles are computed in float32."""


def read_rope(
    raw: Mapping[str, Any],
    context: int,
    theta: float = 10_000.0,
    *,
    base: str = "rope_theta",
    share: str | None = None,
) -> tuple[float, RopeScaling | None]:
    """Base of the rotary angles, and how they are scaled.

    Args:
      raw: the parsed config.json.
      context: longest prompt in tokens.
      theta: base where none is said.
      base: the family's key for it, at the top level.
      share: the family's key for the share of a head that is turned, see `read_rope_width`; None
        where all of it is.

    Raises:
      MgnpError: if a kind or a key is not one that is done here, a number is out of its range, or
        places that say the same thing disagree.
    """
    ropes = {}
    # In the order in which transformers prefers them.
    for key in ("rope_scaling", "rope_parameters"):
        rope = raw.get(key)
        if rope is not None and not isinstance(rope, dict):
            raise MgnpError(f"config.json has {key!r} = {shown(rope)}, wanted an object or null")
        if rope:
            ropes[key] = rope
    own = _base(raw, ropes, base, theta)
    found = {}
    for key, rope in ropes.items():
        if share is not None:
            rope = {k: v for k, v in rope.items() if k != SHARE}
        elif raw.get(SHARE) not in (None, 1) and rope.get("rope_type", rope.get("type")):
            _refuse_share(key, rope, raw[SHARE])
        found[key] = _scaling(key, rope, raw, context, own)
    if len(set(found.values())) > 1:
        raise MgnpError(
            f"config.json has 'rope_scaling' = {shown(raw['rope_scaling'])} and 'rope_parameters' "
            f"= {shown(raw['rope_parameters'])}, where transformers 5 takes the first; delete the "
            "wrong one from a local copy of the checkpoint"
        )
    return own, next(iter(found.values()), None)


def read_rope_width(
    raw: Mapping[str, Any], head_width: int, share: str, default: float
) -> int | None:
    """How many of a head's numbers are turned, see `ModelConfig.rope_width`.

    Args:
      raw: the parsed config.json.
      head_width: E.
      share: the family's key for the share of them, at the top level.
      default: share where none is said.

    Raises:
      MgnpError: if it is not in (0, 1], or places that say it disagree.
    """
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    places = [(rope, SHARE), (raw, share)]
    said = [number(at, key, 1, least=1e-6, largest=1) for at, key in places if key in at]
    if len(set(said)) > 1:
        raise MgnpError(
            f"config.json says that {said[0]:g} and that {said[1]:g} of each head is turned "
            f"({SHARE!r} with other positions, {share!r}); delete the wrong one from a local copy "
            "of the checkpoint"
        )
    width = int(head_width * (said[0] if said else default))
    return None if width == head_width else width


def _refuse_share(key: str, rope: Mapping[str, Any], said: Any) -> None:
    """Of a family whose plain positions turn all of a head, whatever this says; scaled ones not."""
    if rope.get("rope_type", rope.get("type")) != "default":
        raise MgnpError(
            f"config.json has {SHARE!r} = {shown(said)} and scaled positions ({key!r}), which is "
            "not supported together; use a checkpoint without one of them"
        )


def _base(raw: Mapping[str, Any], ropes: Mapping[str, Any], own: str, default: float) -> float:
    """The base, which several places may say."""
    places = [(f"{key}.rope_theta", rope, "rope_theta") for key, rope in ropes.items()]
    places.append((own, raw, own))
    said = {
        name: number(place, key, 0, least=1 / _LARGEST, largest=_LARGEST)
        for name, place, key in places
        if key in place
    }
    theta = said.get(places[0][0], said.get(own, default))
    if set(said.values()) - {theta}:
        listed = " and ".join(f"{name!r} = {value:g}" for name, value in said.items())
        raise MgnpError(
            f"config.json has {listed}, where transformers 5 takes {theta:g}; delete the wrong "
            "one from a local copy of the checkpoint"
        )
    return theta


def _scaling(
    key: str, rope: Mapping[str, Any], raw: Mapping[str, Any], context: int, theta: float
) -> RopeScaling | None:
    """What one place says of scaling."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    more = set(rope) - {"rope_type", "type", "rope_theta", *(known or ())}
    if known is None or more:
        what = f"{', '.join(sorted(shown(n) for n in more))} in it" if known is not None else "it"
        raise MgnpError(
            f"config.json has {key!r} = {shown(rope)}, and {what} is not supported: wanted a "
            f"rope_type of {', '.join(_KINDS)} with its own keys. Use a checkpoint without it."
        )
    # Angles of the dynamic kind are the plain ones up to the context; longer prompts are refused.
    if kind == "default" or (kind == "dynamic" and _positive(rope, "factor")):
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=_positive(rope, "factor"))
    original = size({ORIGINAL: raw.get(ORIGINAL) or context} | dict(rope), ORIGINAL)
    if raw.get(ORIGINAL) not in (None, original):
        raise MgnpError(
            f"config.json has {ORIGINAL!r} = {shown(raw[ORIGINAL])} and '{key}.{ORIGINAL}' = "
            f"{original}; delete the wrong one from a local copy of the checkpoint"
        )
    if kind == "llama3":
        return _llama3(key, rope, original)
    return _yarn(key, rope, original, context, theta)


def _llama3(key: str, rope: Mapping[str, Any], original: int) -> RopeScaling:
    slow, fast = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
    if slow >= fast:
        raise MgnpError(
            f"config.json has {key!r} = {shown(rope)}, wanted a low_freq_factor below its "
            "high_freq_factor"
        )
    factor = _positive(rope, "factor")
    return RopeScaling(kind="llama3", factor=factor, original=original, slow=slow, fast=fast)


def _yarn(
    key: str, rope: Mapping[str, Any], original: int, context: int, theta: float
) -> RopeScaling:
    if theta <= 1:
        raise MgnpError(f"config.json has 'rope_theta' = {theta:g}; yarn wants one above 1")
    whole_pairs = rope.get("truncate", True)
    if not isinstance(whole_pairs, bool):
        raise MgnpError(
            f"config.json has '{key}.truncate' = {shown(whole_pairs)}, wanted true or false"
        )
    has_factor = rope.get("factor") is not None
    factor = _positive(rope, "factor") if has_factor else context / original

    def grown(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    # As transformers: what is null or 0 counts as not said.
    scales: list[Any] = [
        rope.get(name) and _positive(rope, name) for name in ("mscale", "mscale_all_dim")
    ]
    if rope.get("attention_factor") is not None:
        amplitude = _positive(rope, "attention_factor")
    elif all(scales):
        amplitude = grown(scales[0]) / grown(scales[1])
    else:
        amplitude = grown(1)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original=original,
        slow=_positive(rope, "beta_slow") if rope.get("beta_slow") else 1.0,
        fast=_positive(rope, "beta_fast") if rope.get("beta_fast") else 32.0,
        amplitude=amplitude,
        whole_pairs=whole_pairs,
    )


def _positive(place: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    return number(place, key, default, least=1 / _LARGEST, largest=_LARGEST)


def write_rope(model_config: ModelConfig) -> dict[str, Any]:
    """What `read_rope` reads, in config.json's words."""
    theta, scaling = model_config.rope_theta, model_config.rope_scaling
    if scaling is None:
        return {"rope_theta": theta}
    rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        rope[ORIGINAL] = scaling.original
    if scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.slow, "high_freq_factor": scaling.fast}
    if scaling.kind == "yarn":
        rope |= {"beta_slow": scaling.slow, "beta_fast": scaling.fast}
        rope |= {"attention_factor": scaling.amplitude, "truncate": scaling.whole_pairs}
    return {"rope_theta": theta, "rope_scaling": rope}
