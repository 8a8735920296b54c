"""Strict JAX flags for every test, and the fixtures that several files share."""

from __future__ import annotations

import gc
import os
import tempfile

# What one worker or command has compiled, the others need not. JAX reads this when imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="mgnp-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Nearly all the time of these tests is compilation of programs that run for milliseconds.
# Commands that tests call inherit this, as they do XLA's flags below.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# ruff: noqa: E402
import jax
import pytest
from tokenizers import pre_tokenizers

import mgnp_jax as mg
from mgnp_jax.tasks import words
from mgnp_jax.types import Tokenizer
from tests import tiny

# A silently broadcast mask or a key used twice is a bug that no number shows.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Tracing makes millions of objects that live on: looking through them is a tenth of the time.
gc.set_threshold(200_000, 20, 20)
# XLA reads these with the first computation.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_multi_thread_eigen=false"
).strip()


@pytest.fixture(params=["gpt2", "llama"])
def tiny_model(request: pytest.FixtureRequest) -> mg.Model:
    """A tiny random model of each family."""
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
    """A byte-level BPE tokenizer that cuts text as GPT-2's does, its merges ours.

    GPT-2's own files are on the hub only; what the tasks depend on is its form: no
    beginning token, words with their leading space, two-digit numbers.
    """
    # Merges act in this order, so that " 1743" becomes " 17" and "43".
    return byte_level([f" {n}" for n in range(11, 22)] + [f"{n:02d}" for n in range(100)])


@pytest.fixture(scope="session")
def digit_tokenizer() -> Tokenizer:
    """One of the same form that writes numbers digit by digit, as SmolLM2's does."""
    return byte_level([])


def byte_level(numbers: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer that knows the tasks' words and some numbers."""
    from transformers import GPT2Tokenizer

    lists = (words.GIRLS, words.BOYS, words.PLACES, words.OBJECTS, words.EVENTS, ("he", "she"))
    pieces = numbers + [" " + word for part in lists for word in part]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(alphabet))}
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        symbols = piece.replace(" ", "Ġ")
        for end in range(2, len(symbols) + 1):
            left, right = symbols[: end - 1], symbols[end - 1]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    return GPT2Tokenizer(vocab=vocabulary, merges=merges)  # pyright: ignore
