"""Whatever lies in a data file or a tokenizer's: it loads, or our own error says why."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgnp_jax as mg
from mgnp_jax.models.tokenizer import load_tokenizer
from tests import wordy
from tests.tasks.test_files import line

COUNTS = [80, pytest.param(2_000, marks=pytest.mark.full)]
SECONDS = 10

FIELDS = ("clean", "corrupted", "answers", "wrong_answers", "split", "prompts", "corrupt")
TEXTS = st.sampled_from(
    ["", " ", " Mary", " John", "<|unk|>", "<s>", "\ud800", "\0", "\u2028", "﷽", "a" * 5_000, "{"]
) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
GOOD = st.integers(0, 7).map(line)
ROWS = st.builds(
    lambda row, changes: {**row, **changes},
    GOOD,
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2),
)
WRITERS: tuple[Callable[[list[Any]], str], ...] = (
    lambda rows: "\n".join(map(json.dumps, rows)),
    lambda rows: json.dumps(rows),
    lambda rows: json.dumps({"prompts": rows}),
    lambda rows: "\r\n".join(map(str, rows)),
    lambda rows: ",".join(FIELDS),
)
ENCODERS: tuple[Callable[[str], bytes], ...] = (
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("utf-8-sig", "surrogatepass"),
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: gzip.compress(text.encode("utf-8", "surrogatepass")),
)
# What is put where in a file's bytes; mostly nothing.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 9),
        st.sampled_from([b"", b"\0", b"\xff", b"{", b'"', b"]", b"[" * 3_000, b"9" * 5_000]),
    ),
    max_size=2,
)
FILES = st.builds(
    lambda rows, write, encode, edits: edited(encode(write(rows)), edits),
    st.builds(list.__add__, st.lists(GOOD, max_size=3), st.lists(GOOD | ROWS | VALUES, max_size=3)),
    st.sampled_from((*WRITERS[:1] * 3, *WRITERS)),
    st.sampled_from((*ENCODERS[:1] * 5, *ENCODERS)),
    st.just([]) | EDITS,
)


def edited(raw: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, size, put in edits:
        start = int(place * len(raw))
        raw = raw[:start] + put + raw[start + size :]
    return raw


@contextlib.contextmanager
def quick_and_clean(folder: Path, capture: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing but our own error, in time, without a word, and no file more than before."""
    there = sorted(folder.rglob("*"))
    capture.readouterr()
    started = time.perf_counter()
    with contextlib.suppress(mg.MgnpError):
        yield
    assert time.perf_counter() - started < SECONDS
    assert capture.readouterr() == ("", "")
    assert sorted(folder.rglob("*")) == there


def tried(count: int, strategy: Any, check: Callable[[Any], None]) -> None:
    """Calls `check` with so many examples."""
    asked = settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    asked(given(strategy)(lambda example: check(example)))()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which everything is that could be left behind."""
    for name in ("MGNP_JAX_CACHE", "HF_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("count", COUNTS)
def test_any_data_file_loads_or_is_refused(
    mini: mg.Model, alone: Path, capfd: pytest.CaptureFixture[str], count: int
) -> None:
    file = alone / "mine.jsonl"
    loaded = []

    def check(raw: bytes) -> None:
        file.write_bytes(raw)
        for skip_bad, all_test in ((False, False), (True, False), (True, True)):
            with quick_and_clean(alone, capfd):
                data = mg.load_task(
                    file,
                    mini.tokenizer,
                    skip_bad=skip_bad,
                    all_test=all_test,
                    limits=mini.config,
                )
                loaded.append(len(data.test))

    tried(count, FILES, check)
    assert len(loaded) > count / 10


BYTE_LEVEL = {
    "version": "1.0",
    "added_tokens": [
        {
            "id": 7,
            "content": "<s>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}},
    },
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "vocab": {"t": 0, "h": 1, "e": 2, "th": 3, "the": 4, "Ġ": 5, "Ġthe": 6},
        "merges": ["t h", "th e", "Ġ the"],
    },
}
NASTY = (None, True, 0, -1, 2**40, 0.5, "", "<s>", "Unigram", "the", "BPE", [], {}, [[]], "[UNK]")
KEYS = (
    *("tokenizer_class", "unk_token", "bos_token", "pad_token", "add_bos_token", "auto_map"),
    *("model_max_length", "added_tokens_decoder", "extra_special_tokens", "prompt_prefix"),
    *("chat_template", "split_special_tokens", "add_prefix_space", "vocab_file", "init_inputs"),
)
CLASSES = ("GPT2Tokenizer", "LlamaTokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast", "X")


def spoilt(tree: Any, rng: random.Random) -> Any:
    """The same JSON with one value, somewhere, replaced or gone."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return rng.choice(NASTY)
    place = rng.choice([*tree] if isinstance(tree, dict) else range(len(tree)))
    copy = tree.copy()
    if rng.random() < 0.1:
        del copy[place]
    else:
        copy[place] = spoilt(copy[place], rng)
    return copy


@pytest.mark.parametrize("count", COUNTS)
def test_any_tokenizer_loads_or_is_refused(
    mini: mg.Model, alone: Path, capfd: pytest.CaptureFixture[str], count: int
) -> None:
    made = wordy.folder(alone / "m", template="<s> $A")
    whole = json.loads((made / "tokenizer.json").read_text())
    pairs = [
        mg.PromptPair(clean=f"the {a}", corrupted="the the", answers=["the"], wrong_answers=["<s>"])
        for a in ("th", "car", "<s>")
    ]
    loaded = []

    def check(seed: int) -> None:
        rng = random.Random(seed)
        tree = rng.choice((whole, BYTE_LEVEL))
        config: dict[str, Any] = {**wordy.BASE, "tokenizer_class": rng.choice(CLASSES)}
        if rng.random() < 0.5:
            config[rng.choice(KEYS)] = rng.choice(NASTY)
        else:
            tree = spoilt(tree, rng)
        text = json.dumps(tree)
        if rng.random() < 0.1:
            text = text[: rng.randrange(len(text))]
        (made / "tokenizer.json").write_text(text)
        (made / "tokenizer_config.json").write_text(json.dumps(config))
        with quick_and_clean(alone, capfd):
            tokenizer = load_tokenizer(made)
            loaded.append(tokenizer)
            mg.from_pairs(tokenizer, pairs, limits=mini.config, all_test=True, skip_bad=True)

    tried(count, st.integers(0, 2**32), check)
    assert len(loaded) > count / 10
