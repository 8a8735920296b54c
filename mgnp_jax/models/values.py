"""Reading a config.json: each value of the type and range that it must have.

A config.json may come from anyone. Whatever stands in it ends as a plain value or as one sentence
that names the key, what was wanted and what was got.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.types import MgnpError

LARGEST = 2**24
"""Most that any size may be; the largest vocabularies and contexts are below ten million, and
arrays of more cannot even be described to JAX."""


def need(raw: Mapping[str, Any], key: str) -> Any:
    """Reads a key that has no sensible default.

    Args:
      raw: the parsed config.json.
      key: name of the key.

    Returns:
      Its value.

    Raises:
      MgnpError: if the key is missing.
    """
    if key not in raw:
        found = ", ".join(shown(k) for k in sorted(raw)[:30]) or "no key"
        raise MgnpError(f"config.json lacks {key!r}; found {found}{' …' if len(raw) > 30 else ''}")
    return raw[key]


def size(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Reads a key that counts something.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      default: where the key is missing or null; without it, it must be there.

    Raises:
      MgnpError: if it is missing, or not an integer from 1 to `LARGEST`.
    """
    value = need(raw, key) if default is None else raw.get(key)
    if value is None and default is not None:
        return default
    return _whole(key, value, 1)


def count(raw: Mapping[str, Any], key: str, default: int) -> int:
    """Reads a key that counts something of which there may be none.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      default: where the key is missing.

    Raises:
      MgnpError: if it is not an integer from 0 to `LARGEST`.
    """
    return _whole(key, raw.get(key, default), 0)


def _whole(key: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise _unlike(key, f"an integer from {least} to {LARGEST:,}", value)
    return value


def number(
    raw: Mapping[str, Any], key: str, default: float, *, least: float, largest: float
) -> float:
    """Reads a key that is a real number.

    Args:
      raw: the parsed config.json, or an object in it.
      key: name of the key.
      default: where the key is missing.
      least: that it may be.
      largest: that it may be.

    Raises:
      MgnpError: if it is not a number of that range.
    """
    value = raw.get(key, default)
    # NaN is in no range.
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not (numeric and least <= value <= largest):
        raise _unlike(key, f"a number from {least:g} to {largest:g}", value)
    return float(value)


def number_or_null(
    raw: Mapping[str, Any], key: str, default: float | None, *, least: float, largest: float
) -> float | None:
    """Reads a key that is a real number, or null for none.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      default: where the key is missing.
      least: that it may be.
      largest: that it may be.

    Raises:
      MgnpError: if it is neither.
    """
    if raw.get(key, default) is None:
        return None
    return number(raw, key, default or 0, least=least, largest=largest)


def flag(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    """Reads a key that is true or false.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      default: where the key is missing.

    Raises:
      MgnpError: if it is neither.
    """
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise _unlike(key, "true or false", value)
    return value


def one_of(raw: Mapping[str, Any], key: str, known: Collection[str], default: str) -> str:
    """Reads a key that names one of several things.

    Args:
      raw: the parsed config.json.
      key: name of the key.
      known: names that are implemented.
      default: where the key is missing.

    Raises:
      MgnpError: for another name.
    """
    value = raw.get(key, default)
    if not isinstance(value, str) or value not in known:
        raise _unlike(key, f"one of {', '.join(sorted(known))}", value)
    return value


def _unlike(key: str, wanted: str, value: Any) -> MgnpError:
    return MgnpError(f"config.json has {key!r} = {shown(value)}, wanted {wanted}")
