"""The model families, by the name that `ModelConfig.family` and config.json use."""

from __future__ import annotations

from mgnp_jax.models import gpt2, llama
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.family import Family, ParameterCosts
from mgnp_jax.types import MgnpError

FAMILIES: dict[str, Family] = {"gpt2": gpt2.GPT2, "llama": llama.LLAMA}


def family_named(model_type: str) -> Family:
    """Looks up a family.

    Args:
      model_type: `model_type` of a config.json.

    Returns:
      The family.

    Raises:
      MgnpError: if there is none of that name.
    """
    if model_type not in FAMILIES:
        raise MgnpError(
            f"config.json has model_type {model_type!r}; supported are "
            f"{', '.join(sorted(FAMILIES))}. Use a checkpoint of one of these families."
        )
    return FAMILIES[model_type]


def parameter_costs(config: ModelConfig) -> ParameterCosts:
    """Parameters that each kind of kept node of this model accounts for.

    Args:
      config: the model's shape.

    Returns:
      Counts; with every node kept they add up to the model's parameters.
    """
    return family_named(config.family).costs(config)
