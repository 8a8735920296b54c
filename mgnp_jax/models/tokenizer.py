"""Text → token ids, by the checkpoint's own tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.processors import TemplateProcessing

from mgnp_jax.types import MgnpError, Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def _plain(directory: Path) -> bool:
    """Whether the checkpoint says that its tokenizer is of no class of its own."""
    config = directory / "tokenizer_config.json"
    if not ((directory / "tokenizer.json").exists() and config.exists()):
        return False
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
    except (ValueError, AttributeError) as error:
        raise MgnpError(f"{config} holds no JSON object ({error}); fetch it again") from None
    return named in ("PreTrainedTokenizerFast", "TokenizersBackend")


def load_tokenizer(directory: Path, prefix_token: str | None) -> Tokenizer:
    """Loads the tokenizer that lies beside a checkpoint.

    Args:
      directory: the checkpoint.
      prefix_token: put before every text if the tokenizer knows it and does not open
        texts with a token of its own.

    Returns:
      A transformers tokenizer; None if the directory holds none.

    Raises:
      MgnpError: if tokenizer_config.json is not what it should be.
    """
    if not any((directory / name).exists() for name in ("tokenizer.json", "vocab.json")):
        return None
    # Imported here: transformers takes seconds to import, and evaluation on token arrays
    # does without. Most of them go to the classes of single models, which a tokenizer that
    # is all in tokenizer.json does not need.
    if _plain(directory):
        from transformers import PreTrainedTokenizerFast as Loader
    else:
        from transformers import AutoTokenizer as Loader

    tokenizer = Loader.from_pretrained(directory, local_files_only=True)
    known = tokenizer.get_vocab()
    opens = tokenizer("a")["input_ids"] != tokenizer("a", add_special_tokens=False)["input_ids"]
    if prefix_token in known and not opens:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{prefix_token} $A", special_tokens=[(prefix_token, known[prefix_token])]
        )
    return tokenizer
