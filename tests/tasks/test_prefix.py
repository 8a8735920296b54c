"""What prompts begin with: the model's policy, said and settable, once and never at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mgnp_jax as mg
from mgnp_jax.models.tokenizer import load_tokenizer
from mgnp_jax.tasks.prefix import POLICY, prefix_of
from mgnp_jax.types import Tokenizer
from tests import wordy

BOS, EOS, UNKNOWN, END = range(4)


def pairs(opening: str = "") -> list[mg.PromptPair]:
    return [
        mg.PromptPair(
            clean=f"{opening}the car is {a}",
            corrupted=f"{opening}the car is {b}",
            answers=["red"],
            wrong_answers=["blue"],
        )
        for a, b in (("Mary", "John"), ("John", "red"), ("red", "Mary"))
    ]


def first_and_last(tokenizer: Tokenizer, opening: str = "", **asked: Any) -> tuple[set, set]:
    """The tokens that prompts begin and end with, besides words."""
    batch = mg.from_pairs(tokenizer, pairs(opening), **asked).train
    begun = batch.clean[:, 0].tolist() + batch.corrupted[:, 0].tolist()
    ends = batch.attention_mask.sum(-1) - 1
    return set(begun), set(batch.clean[range(len(batch)), ends].tolist())


THE = wordy.WORDS.index("the")
NAMES = {wordy.WORDS.index(word) for word in ("Mary", "John", "red")}


@pytest.mark.parametrize(
    ("made", "begins", "why"),
    [
        ({}, (), "as the model's tokenizer has it"),
        ({"template": "<s> $A"}, (BOS,), "as the model's tokenizer has it"),
        ({"template": "<s> $A </s>"}, (BOS,), "as the model's tokenizer has it"),
        ({"template": "$A </s>"}, (), "as the model's tokenizer has it"),
        ({"template": "<s> <s> $A"}, (BOS, BOS), "as the model's tokenizer has it"),
        (
            {"template": "<s> $A </s>", "unknown": "<s>", "eos_token": "<s>"},
            (BOS,),
            "as the model's tokenizer has it",
        ),
        ({POLICY: "<|endoftext|>"}, (END,), "as 'prompt_prefix' in tokenizer_config.json says"),
        ({POLICY: "", "template": "<s> $A"}, (), "tokenizer_config.json says"),
    ],
)
def test_prompts_begin_as_the_checkpoint_says_and_end_at_their_last_word(
    tmp_path: Path, made: dict, begins: tuple[int, ...], why: str
) -> None:
    tokenizer = load_tokenizer(wordy.folder(tmp_path, **made))
    found = prefix_of(tokenizer)
    assert found.ids == begins and why in found.why
    begun, ended = first_and_last(tokenizer)
    assert begun == {begins[0] if begins else THE}
    assert ended <= NAMES


def test_a_prefix_is_set_by_hand_and_kept_with_the_prompts(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(wordy.folder(tmp_path, template="<s> $A"))
    for nothing in ("", "none"):
        assert first_and_last(tokenizer, prefix=nothing)[0] == {THE}
    data = mg.from_pairs(tokenizer, pairs(), prefix="<|endoftext|> the")
    assert data.prefix is not None and data.prefix.text == "<|endoftext|> the"
    assert data.train.clean[0, :3].tolist() == [END, THE, THE]
    for bad, message in (("<|other|>", "does not know"), ("\ud800", "must be text")):
        with pytest.raises(mg.MgnpError, match=message):
            mg.from_pairs(tokenizer, pairs(), prefix=bad)


@pytest.mark.parametrize("unknown", ["<s>", "<unk>"])
@pytest.mark.parametrize("template", ["", "<s> $A", "<s> $A </s>"])
def test_a_beginning_that_is_written_in_the_prompt_is_there_once(
    tmp_path: Path, template: str, unknown: str
) -> None:
    made = wordy.folder(tmp_path, template=template, unknown=unknown, eos_token="<s>")
    tokenizer = load_tokenizer(made)
    written = mg.from_pairs(tokenizer, pairs("<s> "))
    wanted = mg.from_pairs(tokenizer, pairs(), prefix="<s>")
    assert written.train.clean.tolist() == wanted.train.clean.tolist()
    with pytest.raises(mg.MgnpError, match="words the tokenizer does not know"):
        mg.from_pairs(tokenizer, pairs("<s> strange "))


def test_gpt2s_own_beginning_may_be_written(gpt2_tokenizer: Tokenizer) -> None:
    end = gpt2_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert gpt2_tokenizer.unk_token_id == end
    written = [
        mg.PromptPair(
            clean=f"<|endoftext|>The car is {a} and",
            corrupted=f"<|endoftext|>The car is {b} and",
            answers=[" old"],
            wrong_answers=[" new"],
        )
        for a, b in (("red", "blue"), ("blue", "green"), ("green", "red"))
    ]
    data = mg.from_pairs(gpt2_tokenizer, written)
    assert data.prefix is not None and data.prefix.ids == ()
    for rows in (data.train.clean, data.train.corrupted):
        assert (rows == end).sum(-1).tolist() == [1] and rows[0, 0] == end


def test_texts_that_become_the_same_tokens_are_one_prompt(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(wordy.folder(tmp_path, template="<s> $A"))
    again = [*pairs(), *pairs("<s> ")]
    with pytest.raises(mg.MgnpError, match=r"pairs\[3\]: the same pair as pairs\[0\]"):
        mg.from_pairs(tokenizer, again)
    assert sum(mg.from_pairs(tokenizer, again, skip_bad=True).counts().values()) == 3


def test_a_policy_outlives_saving_and_changes_no_one_elses_tokens(
    mini: mg.Model, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = wordy.folder(tmp_path / "first", **{POLICY: "<|endoftext|>"})
    theirs = AutoTokenizer.from_pretrained(folder)("the car")["input_ids"]
    model = mg.Model(
        name="x", config=mini.config, params=mini.params, tokenizer=load_tokenizer(folder)
    )
    mg.from_pairs(model.tokenizer, pairs())
    mg.save_model(model, tmp_path / "second")
    again = load_tokenizer(tmp_path / "second")
    assert prefix_of(again) == prefix_of(model.tokenizer)
    assert prefix_of(again).text == "<|endoftext|>"
    assert AutoTokenizer.from_pretrained(tmp_path / "second")("the car")["input_ids"] == theirs
    assert theirs[0] == THE


def test_a_llama_that_knows_smollm2s_token_gets_nothing(tmp_path: Path) -> None:
    from tests import tiny

    llama = tiny.model("llama")
    mg.save_model(llama, tmp_path)
    wordy.folder(tmp_path)
    loaded = mg.load_model(str(tmp_path))
    assert "<|endoftext|>" in loaded.tokenizer.get_vocab()
    assert first_and_last(loaded.tokenizer)[0] == {THE}


def test_an_older_conversion_of_smollm2_is_told_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgnp_jax.models import smollm2

    monkeypatch.setenv("MGNP_JAX_CACHE", str(tmp_path))
    folder = wordy.folder(tmp_path / "smollm2-135m")
    for name in smollm2.FILES[:2]:
        (folder / name).touch()
    for _ in range(2):
        assert prefix_of(load_tokenizer(smollm2.fetch())).text == "<|endoftext|>"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config == {**wordy.BASE, POLICY: "<|endoftext|>"}
    assert {path.name for path in folder.iterdir()} == {*smollm2.FILES}
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(mg.MgnpError, match="delete the folder"):
        smollm2.fetch()
