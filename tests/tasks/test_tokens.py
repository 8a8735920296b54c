"""Answers are the tokens that follow a prompt, whatever a tokenizer puts before what it reads."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.tasks.tokens import answer_ids, is_single_token, token_ids

WORDS = ("Mary", "John", "Johns", "Then", "and", "to")


@pytest.fixture(scope="module")
def spaced() -> Any:
    """As of Llama 2, Mistral and Phi-3: a space is put before every text, and is of its word."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    begun = [list(itertools.accumulate(f"▁{word}")) for word in WORDS]
    merges = [(a, b[len(a) :]) for parts in begun for a, b in itertools.pairwise(parts)]
    pieces = dict.fromkeys(["<unk>", *"▁".join(WORDS), *itertools.chain(*begun)])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = list(dict.fromkeys(merges))
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_an_answer_is_what_follows_where_a_space_is_put_before_all_text(spaced: Any) -> None:
    whole = spaced.convert_ids_to_tokens(token_ids(spaced, "Then Mary and John"))
    assert whole == ["▁Then", "▁Mary", "▁and", "▁John"]
    assert len(token_ids(spaced, " Mary")) == 2
    (mary, longer) = answer_ids(spaced, [" Mary", " Mary to"])
    assert spaced.convert_ids_to_tokens(mary) == ["▁Mary"]
    assert spaced.convert_ids_to_tokens(longer) == ["▁Mary", "▁to"]
    assert is_single_token(spaced, " Mary") and not is_single_token(spaced, " Mart")


def test_pairs_are_scored_on_the_word_and_not_on_a_space(spaced: Any) -> None:
    pair = mg.PromptPair(
        clean="Then Mary and John to",
        corrupted="Then John and Mary to",
        answers=[" Mary"],
        wrong_answers=[" John"],
    )
    batch = mg.from_pairs(spaced, [pair], all_test=True).test
    tokens = spaced.convert_ids_to_tokens(batch.targets.answers.tokens[0].tolist())
    assert tokens == ["▁Mary", "▁John"]


def test_other_tokenizers_read_answers_as_they_stand(mini: mg.Model, digit_tokenizer: Any) -> None:
    texts = [" Mary", "Mary", " Mary and John", " 1743"]
    for tokenizer in (mini.tokenizer, digit_tokenizer):
        read = [token_ids(tokenizer, text) for text in texts]
        assert answer_ids(tokenizer, texts) == read and max(map(len, read)) > 1
