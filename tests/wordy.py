"""Tiny tokenizers of whole words, written as checkpoints have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("<s>", "</s>", "<unk>", "<|endoftext|>", "the", "car", "is", "Mary", "John", "red", "blue")

BASE = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>"}


def folder(path: Path, *, template: str = "", unknown: str | None = "<unk>", **config: Any) -> Path:
    """Writes tokenizer.json and tokenizer_config.json.

    Args:
      path: made if missing.
      template: what is put around texts, as `"<s> $A </s>"`.
      unknown: what stands for unknown words; None if nothing does.
      config: keys of tokenizer_config.json, beside those of `BASE`.
    """
    numbers = {word: i for i, word in enumerate(WORDS)}
    said = {} if unknown is None else {"unk_token": unknown}
    tokenizer = Tokenizer(models.WordLevel(numbers, **said))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        special = [(word, numbers[word]) for word in template.split() if word != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=special
        )
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    whole = {**BASE, "unk_token": unknown, **config}
    (path / "tokenizer_config.json").write_text(json.dumps(whole))
    return path
