"""The model families, by the `model_type` of config.json. One line here and one file beside it."""

from __future__ import annotations

from mgnp_jax.files import shown
from mgnp_jax.models.families.gemma import GEMMA
from mgnp_jax.models.families.gemma2 import GEMMA2
from mgnp_jax.models.families.gemma3 import GEMMA3
from mgnp_jax.models.families.gpt2 import GPT2
from mgnp_jax.models.families.gpt_neox import GPT_NEOX
from mgnp_jax.models.families.gptj import GPTJ
from mgnp_jax.models.families.llama import LLAMA
from mgnp_jax.models.families.mistral import MISTRAL
from mgnp_jax.models.families.olmo2 import OLMO2
from mgnp_jax.models.families.opt import OPT
from mgnp_jax.models.families.phi3 import PHI3
from mgnp_jax.models.families.qwen2 import QWEN2
from mgnp_jax.models.families.qwen3 import QWEN3
from mgnp_jax.models.families.smollm3 import SMOLLM3
from mgnp_jax.models.family import Family
from mgnp_jax.types import MgnpError

_ALL = (
    GEMMA,
    GEMMA2,
    GEMMA3,
    GPT2,
    GPT_NEOX,
    GPTJ,
    LLAMA,
    MISTRAL,
    OLMO2,
    OPT,
    PHI3,
    QWEN2,
    QWEN3,
    SMOLLM3,
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}


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
            f"config.json has model_type {shown(model_type)}; supported are "
            f"{', '.join(sorted(FAMILIES))}. Use a checkpoint of one of these families."
        )
    return FAMILIES[model_type]
