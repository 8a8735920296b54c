"""Which of a config.json's keys can be left unread, and which must be refused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from mgnp_jax.files import shown
from mgnp_jax.types import MgnpError

# In nearly every config.json, and none is of a model: not worth importing transformers for.
_ABOUT_THE_FILE = ("model_type", "architectures", "bos_token_id", "eos_token_id")

# What transformers acts on whatever the model, though no config class declares it: → values with
# which it changes nothing.
_ACTED_ON = {
    "quantization_config": (None,),
    "per_layer_config": (None, {}),
    "transformers_weights": (None,),
    "is_causal": (True,),
}


def check_keys(
    raw: Mapping[str, Any],
    *,
    read: Collection[str],
    inert: Collection[str] = (),
    required: Mapping[str, Collection[Any]] | None = None,
) -> None:
    """Refuses a config.json that asks for something the code does not do.

    What transformers' own config class of that `model_type` does not declare, transformers'
    model does not act on, and neither need we. What it declares must be read here, or be inert,
    or be at its default.

    Args:
      raw: the parsed config.json.
      read: keys that the family reads.
      inert: keys that the class declares and that cannot change an inference pass (dropout).
      required: key → the values under which our forward pass is the right one.

    Raises:
      MgnpError: naming the key, its value and the values that are supported; or two keys that
        transformers takes for one, with different values.
    """
    required = _ACTED_ON | dict(required or {})
    for key, value in raw.items():
        if key in read or key in inert or key in _ABOUT_THE_FILE:
            continue
        if key in required:
            supported = required[key]
        else:
            declared, aliases = _declared(str(raw.get("model_type")))
            if key in aliases and aliases[key] in read:
                _check_alias(raw, key, aliases[key])
            if key not in declared:
                continue
            supported = (declared[key],)
        if value not in supported:
            raise MgnpError(
                f"config.json has {shown(key)} = {shown(value)}, which is not supported: wanted "
                f"{' or '.join(map(repr, supported))}. Use a checkpoint without it; if it cannot "
                "change the forward pass, delete the key from a local copy of the checkpoint and "
                "load that."
            )


def _check_alias(raw: Mapping[str, Any], alias: str, key: str) -> None:
    """Refuses two names of one thing with different values; transformers would take the alias."""
    said = raw.get(key)
    if not isinstance(said, int | float | str) or raw[alias] != said:
        other = f"{key!r} = {shown(raw[key])}" if key in raw else f"no {key!r}"
        raise MgnpError(
            f"config.json has {alias!r} = {shown(raw[alias])}, which transformers takes for "
            f"{key!r}, and {other}; keep the right one, as {key!r}, in a local copy of the "
            "checkpoint"
        )


@functools.cache
def _declared(model_type: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What transformers' config class has of its own: name → default, other name → name."""
    # Imported here: it takes a second, and most config.json of ours need no answer.
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise MgnpError(
            f"transformers knows no model_type {shown(model_type)}, so it cannot be told which "
            "keys of its config.json matter; name all of them to check_keys"
        )
    config_class = CONFIG_MAPPING[model_type]
    own = inspect.signature(config_class).parameters
    common = inspect.signature(PreTrainedConfig).parameters
    # Of every model, but declared by each: what a task's head or generation would use.
    about_use = {"use_cache", "pad_token_id", "initializer_range"}
    declared = {n: p.default for n, p in own.items() if n not in common and n not in about_use}
    return declared, config_class.attribute_map
