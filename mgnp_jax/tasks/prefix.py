"""What is put before every prompt: the checkpoint's own policy, or what the user says.

Nothing is ever put after a prompt, which ends at its last word whatever the tokenizer does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from mgnp_jax.files import shown
from mgnp_jax.tasks.problems import unreadable
from mgnp_jax.tasks.tokens import has_unknown, token_ids, unknown_token
from mgnp_jax.types import MgnpError, Tokenizer

POLICY = "prompt_prefix"
"""Key of tokenizer_config.json by which a checkpoint says its prefix, where that is not what its
tokenizer adds by itself. transformers keeps it and minds it not, so it changes no one's tokens."""

NOTHING = ("", "none")
"""What a user says for no prefix."""


class Prefix(NamedTuple):
    """What prompts begin with.

    Attributes:
      text: of it; empty for nothing.
      ids: its tokens.
      why: who says so.
    """

    text: str
    ids: tuple[int, ...]
    why: str

    def __str__(self) -> str:
        """A sentence's beginning."""
        if not self.ids:
            return "Nothing is put before prompts"
        number = ", ".join(map(str, self.ids))
        return f"Prompts begin with {shown(self.text)} (id{'s' * (len(self.ids) > 1)} {number})"

    def before(self, ids: Sequence[int]) -> list[int]:
        """A prompt's tokens with the prefix, once: a prompt that begins with it has it already.

        Args:
          ids: tokens of the prompt's text.
        """
        size = len(self.ids)
        return [*ids] if tuple(ids[:size]) == self.ids else [*self.ids, *ids]


def prefix_of(tokenizer: Tokenizer, wanted: str | None = None) -> Prefix:
    """Decides what prompts begin with.

    Args:
      tokenizer: a transformers tokenizer.
      wanted: the user's choice; `none` and the empty text are nothing. None for the checkpoint's
        own policy.

    Raises:
      MgnpError: if the text is none of this tokenizer's.
    """
    if wanted is not None:
        text, why = "" if wanted in NOTHING else wanted, "as set"
    elif POLICY in getattr(tokenizer, "init_kwargs", {}):
        text, why = tokenizer.init_kwargs[POLICY], f"as {POLICY!r} in tokenizer_config.json says"
    else:
        own = _added_before(tokenizer)
        text = "".join(tokenizer.convert_ids_to_tokens(own))
        if token_ids(tokenizer, text) != own:
            raise MgnpError(
                f"the tokenizer begins texts with tokens that cannot be written, {own}; say what "
                "prompts begin with (--prefix TEXT, or --prefix none; prefix= from Python)"
            )
        return Prefix(text, tuple(own), "as the model's tokenizer has it")
    if not isinstance(text, str) or unreadable(text):
        raise MgnpError(f"the prefix must be text, or 'none' for nothing; got {shown(text)}")
    ids = token_ids(tokenizer, text) if text else []
    if text and (not ids or has_unknown(tokenizer, unknown_token(tokenizer), text, ids)):
        raise MgnpError(
            f"the prefix {shown(text)} has words that this tokenizer does not know; pass another "
            "(--prefix TEXT, or --prefix none; prefix= from Python)"
        )
    return Prefix(text, tuple(ids), why)


def _added_before(tokenizer: Tokenizer) -> list[int]:
    """The tokens that a tokenizer by itself puts before a text."""
    special = set(tokenizer.all_special_ids)
    words = (tokenizer.decode([i]) for i in range(min(len(tokenizer), 1_000)))
    for text in itertools.chain(("a", "the"), words):
        bare = token_ids(tokenizer, text)
        # Where it begins among the others can be seen of ordinary tokens alone.
        if not bare or special & {*bare}:
            continue
        whole = tokenizer(text)["input_ids"]
        for start in range(len(whole) - len(bare) + 1):
            if whole[start:][: len(bare)] == bare:
                return whole[:start]
    return []
