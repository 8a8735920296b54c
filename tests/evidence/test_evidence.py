"""Evidence on disk and as the page has it: the same, whatever is in it, and refused if damaged."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.evidence.evidence import ARRAY_FILE, TEXT_FILE
from mgnp_jax.evidence.examples import shown_examples
from tests import tiny
from tests.evidence.test_effects import CONFIG, batch, evidence, some_edges, some_nodes

HOSTILE = "</script><script>\u202eevil\u202c \"'&\n\U0001f600\ud800\x00" + "a" * 10_000


def same(one: Any, other: Any) -> None:
    """Equal in every value, type of array and order of keys' values."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other):
            same(*pair)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("level", ["nodes", "edges"])
def test_what_is_saved_is_loaded_without_a_model(level: str, tmp_path: Path) -> None:
    found = evidence("llama", level)
    example = {**found.examples[0], "clean": HOSTILE}
    found = dataclasses.replace(found, examples=[example, *found.examples[1:]], task=HOSTILE)
    found.save(tmp_path / "run" / "evidence")
    for folder in (tmp_path / "run" / "evidence", tmp_path / "run"):
        loaded = mg.load_evidence(folder)
        for field in dataclasses.fields(mg.Evidence):
            same(getattr(loaded, field.name), getattr(found, field.name))


def test_the_page_gets_json_of_four_digits() -> None:
    found = evidence("llama")
    page = json.loads(json.dumps(found.as_page(), allow_nan=False))
    assert set(page) == {field.name for field in dataclasses.fields(mg.Evidence)}
    for kind, effects in found.removal.items():
        own = np.array(page["removal"][kind]["score"], float)
        np.testing.assert_allclose(own, effects["score"], rtol=5.1e-4)
        assert page["removal"][kind]["exact"] == effects["exact"].tolist()
    pattern = page["patterns"]["clean"]
    raw = np.frombuffer(base64.b64decode(pattern["data"]), np.uint8).reshape(pattern["shape"])
    np.testing.assert_array_equal(raw, found.patterns["clean"])
    p, length = CONFIG.examples, batch(tiny.model("llama")).clean.shape[1]
    assert raw.shape == (p, len(found.patterns["heads"]), length, length)


def test_damaged_evidence_is_refused(tmp_path: Path) -> None:
    evidence("llama").save(tmp_path)
    with pytest.raises(mg.MgnpError, match="holds no evidence.json"):
        mg.load_evidence(tmp_path / "elsewhere")
    whole = (tmp_path / ARRAY_FILE).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive"):
        (tmp_path / ARRAY_FILE).write_bytes(damaged)
        with pytest.raises(mg.MgnpError, match="cannot be read"):
            mg.load_evidence(tmp_path)
    (tmp_path / ARRAY_FILE).write_bytes(whole)
    (tmp_path / TEXT_FILE).write_text('{"task": "ioi"}')
    with pytest.raises(mg.MgnpError, match="has the fields"):
        mg.load_evidence(tmp_path)
    (tmp_path / TEXT_FILE).write_text("[1]")
    with pytest.raises(mg.MgnpError, match="wanted an object"):
        mg.load_evidence(tmp_path)


def test_votes_are_shares_of_circuits_of_one_level() -> None:
    model = tiny.model("llama")
    own = some_nodes(model)
    full = mg.Circuit(masks=mg.full_masks(model.config), metadata={})
    found = mg.explain(model, own, batch(model), CONFIG, others=[full, full, full])
    for name, votes in found.votes.items():
        np.testing.assert_allclose(votes, np.where(np.asarray(own[name]), 1, 0.75))
    edges = mg.Circuit(masks=jax.device_put(some_edges(model)), metadata={})
    with pytest.raises(mg.MgnpError, match="one level"):
        mg.explain(model, own, batch(model), CONFIG, others=[edges])
    assert evidence("llama").votes == {}


def test_what_cannot_be_explained_is_refused() -> None:
    for name in ("prompts", "examples", "tokens", "drivers"):
        with pytest.raises(mg.MgnpError, match=f"{name} must be at least 1"):
            mg.ExplainConfig(**{name: 0})
    with pytest.raises(mg.MgnpError, match="neurons must not be negative"):
        mg.ExplainConfig(neurons=-1)
    with pytest.raises(mg.MgnpError, match="memory_gib"):
        mg.ExplainConfig(memory_gib=0)


def test_how_far_it_is_is_told() -> None:
    model, told = tiny.model("llama"), []
    mg.explain(model, some_nodes(model), batch(model), CONFIG, on_record=told.append)
    steps = [record for record in told if "step" in record]
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    assert steps[-1]["step"] == steps[-1]["of"]
    assert any("Memory" in record.get("text", "") for record in told)
    assert all(record["passing"] for record in told)


def test_examples_are_verbatim(mini: mg.Model, mini_ioi: mg.TaskData) -> None:
    some = mini_ioi.test.take(slice(3))
    logits = np.zeros((3, mini.config.vocab_size), np.float32)
    logits[:, 7] = 3
    found = shown_examples(mini.tokenizer, some, {"model": logits})
    for row, example in enumerate(found):
        length = int(some.attention_mask[row].sum())
        assert "".join(example["clean_tokens"]) == example["clean"]
        assert (
            mini.tokenizer(example["corrupted"])["input_ids"]
            == some.corrupted[row, :length].tolist()
        )
        assert len(example["answers"]) == len(example["wrong_answers"]) == 1
        assert example["answers"][0].startswith(" ")
        top = example["top"]["model"]
        assert len(top) == 5 and top[0][0] == mini.tokenizer.decode([7])
        expected = np.exp(3) / (np.exp(3) + mini.config.vocab_size - 1)
        assert top[0][1] == pytest.approx(expected, rel=1e-4)
