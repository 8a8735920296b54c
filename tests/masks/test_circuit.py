"""Extraction, and circuits on disk."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax import checkpoint
from mgnp_jax.masks.edges import edge_count, existing
from tests import tiny


def a_circuit(seed: int = 0) -> mg.Circuit:
    log_alpha = {
        name: jax.random.normal(jax.random.key(seed + i), leaf.shape) * 2
        for i, (name, leaf) in enumerate(mg.full_masks(tiny.GPT2).items())
    }
    metadata = {"model": "tiny-gpt2", "task": "random", "figures": {"kl": 0.25}}
    return mg.Circuit(masks=mg.binarise(log_alpha), log_alpha=log_alpha, metadata=metadata)


def test_binarise_is_the_threshold_then_the_hierarchy() -> None:
    log_alpha = mg.full_masks(tiny.GPT2, 1.0)
    log_alpha["attention_heads"] = log_alpha["attention_heads"].at[1, 2].set(-1.7)
    log_alpha["mlp_blocks"] = log_alpha["mlp_blocks"].at[0].set(-1.5)
    masks = mg.binarise(log_alpha)
    assert not bool(masks["attention_heads"][1, 2])
    assert not bool(masks["attention_neurons"][1, 2].any())
    assert int(masks["attention_neurons"].sum()) == 3 * 4 * 3 - 3
    assert bool(masks["mlp_blocks"].all())
    chex.assert_type(list(masks.values()), bool)


def test_a_notebook_shows_what_is_kept_and_measured() -> None:
    circuit = a_circuit()
    shown = circuit._repr_html_()
    heads = np.asarray(circuit.masks["attention_heads"])
    assert f"<td>{heads.sum()} of {heads.size}</td>" in shown and "0.25" in shown
    last = "".join("■" if kept else "□" for kept in heads[-1])
    assert f"<th scope=row>{len(heads) - 1}</th><td>{last}</td>" in shown
    assert shown.count("■") == heads.sum() + np.asarray(circuit.masks["mlp_blocks"]).sum()
    hostile = {"task": "<script>alert(1)</script>", "figures": {"kl": "<b>", "score": None}}
    shown = dataclasses.replace(circuit, metadata=hostile)._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown and "<td><b>" not in shown
    edges = mg.Circuit(masks=jax.device_put(existing(tiny.GPT2)), metadata={"figures": 3})
    assert f"<td>{edge_count(existing(tiny.GPT2))}</td>" in edges._repr_html_()


def test_a_shell_shows_sizes_and_figures_in_one_line() -> None:
    circuit = a_circuit()
    shown, heads = repr(circuit), np.asarray(circuit.masks["attention_heads"])
    assert f"; Attention heads kept {heads.sum()} of {heads.size}; " in shown
    assert "KL, nats 0.25" in shown and "\n" not in shown and "Array" not in shown
    assert f"for {circuit.metadata['task']!r}" in shown
    hostile = {"task": "\x1b[31m\n", "figures": {"kl": "\x07"}}
    assert repr(dataclasses.replace(circuit, metadata=hostile)).isprintable()
    edges = mg.Circuit(masks=jax.device_put(existing(tiny.GPT2)), metadata={})
    assert repr(edges) == f"<Circuit: Edges kept {edge_count(existing(tiny.GPT2)):,}>"


def test_saved_and_loaded_circuits_are_the_same(tmp_path: Path) -> None:
    circuit = a_circuit()
    circuit.save(tmp_path / "circuit")
    for path in (tmp_path / "circuit", tmp_path):
        loaded = mg.load_circuit(path)
        chex.assert_trees_all_equal(loaded.masks, circuit.masks)
        chex.assert_trees_all_equal(loaded.log_alpha, circuit.log_alpha)
        assert loaded.metadata == circuit.metadata
        assert loaded.masks["attention_heads"].dtype == bool


def test_a_second_save_does_not_overwrite(tmp_path: Path) -> None:
    a_circuit().save(tmp_path / "c")
    with pytest.raises(mg.MgnpError, match="not an empty folder"):
        a_circuit(9).save(tmp_path / "c")
    chex.assert_trees_all_equal(mg.load_circuit(tmp_path / "c").masks, a_circuit().masks)


def test_a_changed_circuit_is_refused(tmp_path: Path) -> None:
    a_circuit().save(tmp_path / "c")
    file = tmp_path / "c" / "_CHECKPOINT_METADATA"
    text = json.loads(file.read_text())
    saved = text["custom_metadata"]["sha256"]
    file.write_text(file.read_text().replace(saved, "0" * len(saved)))
    with pytest.raises(mg.MgnpError, match="checksum .*0000.* was saved"):
        mg.load_circuit(tmp_path / "c")


@pytest.mark.parametrize("content", [None, "nothing", "junk"])
def test_what_is_no_circuit_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "x"
    if content:
        path.mkdir()
    if content == "junk":
        (path / "_CHECKPOINT_METADATA").write_text("{")
    with pytest.raises(mg.MgnpError, match="wanted"):
        mg.load_circuit(path)


def test_metadata_does_not_hold_the_checksum_of_itself(tmp_path: Path) -> None:
    a_circuit().save(tmp_path / "c")
    loaded = mg.load_circuit(tmp_path / "c")
    loaded.save(tmp_path / "again")
    chex.assert_trees_all_equal(mg.load_circuit(tmp_path / "again").masks, loaded.masks)
    assert np.all(jnp.isfinite(tiny.log_alpha(loaded)["mlp_hidden"]))


def test_the_users_own_logger_is_left_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        seen: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        with checkpoint._without_its_warnings():
            logger.warning("the user's own")
        a_circuit().save(tmp_path / "c")
        mg.load_circuit(tmp_path / "c")
        assert logger.level == logging.INFO and not logger.filters
        assert seen == ["the user's own"]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_every_tree_of_a_circuit_is_saved(tmp_path: Path) -> None:
    masks = mg.full_masks(tiny.LLAMA, embedding=True)
    scores = jax.tree.map(lambda leaf: leaf + 0.5, masks)
    constants = {"embedding": jnp.ones(12), "attn_z": jnp.ones((3, 4, 4))}
    circuit = mg.Circuit(
        masks=masks,
        metadata={},
        log_alpha=mg.full_masks(tiny.LLAMA, -1.0, embedding=True),
        scores={name: scores[name] for name in ("attention_heads", "embedding")},
        ablation_values=constants,
    )
    circuit.save(tmp_path / "c")
    loaded = mg.load_circuit(tmp_path / "c")
    # Binary masks of any type come back as bool.
    chex.assert_trees_all_equal(loaded.masks, jax.tree.map(lambda leaf: leaf > 0, masks))
    for name in ("log_alpha", "scores", "ablation_values"):
        chex.assert_trees_all_equal(getattr(loaded, name), getattr(circuit, name))
