"""Text → token ids, whatever the tokenizer does: nothing added, nothing cut, nothing raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mgnp_jax.types import MgnpError, Tokenizer

_BEFORE = "a"
"""A text that other text may follow."""


class Limits(Protocol):
    """What a model can take; its `ModelConfig` says so."""

    @property
    def context(self) -> int:
        """The most tokens a prompt may have."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are smaller than this."""
        ...


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Refuses a model without tokenizer.

    Args:
      tokenizer: a transformers tokenizer, or None.

    Raises:
      MgnpError: if it is None.
    """
    if tokenizer is None:
        raise MgnpError(
            "the model has no tokenizer: its directory lacks tokenizer.json (or vocab.json and "
            "merges.txt); copy them there"
        )


def all_token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of pieces of text, without those that a tokenizer puts before or after.

    Args:
      tokenizer: a transformers tokenizer.
      texts: as they stand inside a prompt, leading space included.

    Returns:
      Token ids of each; none for a text that the tokenizer cannot read.
    """
    if not texts:
        return []
    try:
        # All in one call: a call for each took most of a task's loading.
        return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    # A tokenizer without a token for unknown words raises what it likes.
    except Exception:
        if len(texts) == 1:
            return [[]]
        return [all_token_ids(tokenizer, [text])[0] for text in texts]


def answer_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of texts as they follow other text.

    Tokenizers of Llama 2, Mistral and Phi-3 put a space before whatever they read, so that a text
    that begins with one would have two.

    Args:
      tokenizer: a transformers tokenizer.
      texts: leading space included.

    Returns:
      Token ids of each, as `all_token_ids`.
    """
    found = all_token_ids(tokenizer, texts)
    # One token is read alike everywhere, and nearly all answers are.
    several = [i for i, text in enumerate(texts) if text[:1] == " " and len(found[i]) > 1]
    if not several:
        return found
    (before,) = all_token_ids(tokenizer, [_BEFORE])
    after = all_token_ids(tokenizer, [_BEFORE + texts[i] for i in several])
    bare = all_token_ids(tokenizer, [texts[i][1:] for i in several])
    for i, whole, own in zip(several, after, bare):
        if own and whole == before + own != before + found[i]:
            found[i] = own
    return found


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """`all_token_ids` of one piece of text.

    Args:
      tokenizer: a transformers tokenizer.
      text: as it stands inside a prompt, leading space included.

    Returns:
      Token ids.
    """
    return all_token_ids(tokenizer, [text])[0]


def unknown_token(tokenizer: Tokenizer) -> tuple[str, int] | None:
    """The token that a tokenizer has for what it does not know, as text and number.

    Args:
      tokenizer: a transformers tokenizer.

    Returns:
      None if it has none.
    """
    # Where tokenizer_config.json is silent, tokenizer.json may say it.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = tokenizer.unk_token or getattr(getattr(backend, "model", None), "unk_token", None)
    return (text, tokenizer.convert_tokens_to_ids(text)) if text else None


def has_unknown(
    tokenizer: Tokenizer, unknown: tuple[str, int] | None, text: str, ids: Sequence[int]
) -> bool:
    """Whether a text has words that the tokenizer does not know.

    The token for unknown words may be a known one besides: GPT-2's also begins texts. Where it is
    written in the text, it is what was meant.

    Args:
      tokenizer: a transformers tokenizer.
      unknown: its `unknown_token`.
      text: as it stands inside a prompt.
      ids: its tokens.
    """
    if unknown is None or unknown[1] not in ids:
        return False
    written, number = unknown
    return any(number in part for part in all_token_ids(tokenizer, text.split(written)))


def is_single_token(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text is one token, and one the tokenizer knows.

    Args:
      tokenizer: a transformers tokenizer.
      text: as it stands inside a prompt, leading space included.
    """
    (ids,) = answer_ids(tokenizer, [text])
    return len(ids) == 1 and not has_unknown(tokenizer, unknown_token(tokenizer), text, ids)
