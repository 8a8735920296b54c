"""Text → token ids, by the checkpoint's own tokenizer.json."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgnp_jax.files import read_object
from mgnp_jax.tasks.prefix import POLICY
from mgnp_jax.types import MgnpError, Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that are all in tokenizer.json."""

ELSEWHERE = ("fast_tokenizer_files", "gguf_file")
"""Keys of tokenizer_config.json that name other files to read."""


def load_tokenizer(directory: Path) -> Tokenizer:
    """Loads the tokenizer that lies beside a checkpoint; it adds what it adds by itself.

    A tokenizer is data: no code of the checkpoint's is run, and no file outside it is read.

    Args:
      directory: the checkpoint.

    Returns:
      A transformers tokenizer; None if the directory holds none.

    Raises:
      MgnpError: if its files are not what they should be.
    """
    if not any((directory / name).exists() for name in ("tokenizer.json", "vocab.json")):
        return None
    for file in directory.iterdir():
        # Whichever transformers opens: it may wait for good at a pipe.
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise MgnpError(
                f"{file} is neither a file nor a folder; wanted the files "
                f"{', '.join(TOKENIZER_FILES)} as transformers writes them. Fetch them again"
            )
    config = _config(directory / "tokenizer_config.json")
    # Imported here: transformers takes seconds to import, and evaluation on token arrays
    # does without. Most of them go to the classes of single models, which a tokenizer that
    # is all in tokenizer.json does not need.
    whole = directory / "tokenizer.json"
    # Said, as early versions of transformers 5 else read the file that the config names.
    own: dict[str, Any] = {"tokenizer_file": str(whole)} if whole.exists() else {}
    if own and config.get("tokenizer_class") in PLAIN:
        from transformers import PreTrainedTokenizerFast as Loader
    else:
        from transformers import AutoTokenizer as Loader
    with _quiet():
        try:
            tokenizer = Loader.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False, **own
            )
            # What is damaged may show in use alone.
            tokenizer("")
            tokenizer.decode(tokenizer.all_special_ids[:1])
            return tokenizer
        # Of several libraries, one of which is in Rust and raises what is no Exception.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            told = " ".join(str(error).split())[:300]
            raise MgnpError(
                f"the tokenizer of {directory} cannot be loaded ({type(error).__name__}: {told}); "
                f"wanted the files {', '.join(TOKENIZER_FILES)} as transformers writes them. Fetch "
                "them again; code that comes with a checkpoint is never run"
            ) from None


def _config(file: Path) -> dict[str, Any]:
    """What tokenizer_config.json says; nothing if there is none."""
    if not file.exists():
        return {}
    config = read_object(file)
    for key in ELSEWHERE:
        if config.get(key):
            raise MgnpError(
                f"{file} names other files ({key!r}); wanted a tokenizer that is all in "
                "tokenizer.json. Save it anew with transformers"
            )
    if not isinstance(config.get(POLICY, ""), str):
        raise MgnpError(f"{file}: {POLICY!r} must be text, got {config[POLICY]!r}")
    return config


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' remarks from what is printed; what matters is raised."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
