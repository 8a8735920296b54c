"""A search that was put aside goes on to the same circuit; numbers that are none are noticed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.methods.node_pruning import loop
from mgnp_jax.methods.node_pruning import step as step_module
from mgnp_jax.runs.states import States
from tests import tiny
from tests.methods.test_state import CONFIG, RANKED


def discover(
    folder: Path | None,
    config: Any = CONFIG,
    stop_after: int | None = None,
    every: float = 1e6,
    said: Any = None,
) -> mg.Circuit:
    """A search on the tiny model; stopped as by a signal after some steps, its records kept."""
    model = tiny.model("gpt2")
    asked = (jax.random.key(0), model, tiny.data(model.config), config)
    if folder is None:
        return mg.discover(*asked)
    with contextlib.closing(States(folder, every=every)) as states:

        def on_record(record: Any) -> None:
            if said is not None:
                said.append(record)
            if stop_after is not None and record.get("step", 0) >= stop_after:
                states._stop.asked = 2

        return mg.discover(*asked, on_record=on_record, saves=states)


@pytest.mark.parametrize("asked", [{}, RANKED], ids=["price", "keep"])
def test_a_search_that_was_stopped_goes_on_to_the_same_circuit(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    config = dataclasses.replace(CONFIG, **asked)
    expected = discover(None, config)
    said: list[Any] = []
    for after in (1, 10, 21):
        with pytest.raises(KeyboardInterrupt):
            discover(tmp_path, config, stop_after=after, said=said)
        assert (tmp_path / f"step-{after:08d}").is_dir()
    # Some is gone on from with nodes left out, where all pay one price.
    left_out = any("cost" in record and record["step"] < 21 for record in said)
    assert left_out or config.nested
    got = discover(tmp_path, config)
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    chex.assert_trees_all_equal(got.masks, expected.masks)
    for part in ("validation", "settings", "note"):
        assert got.metadata[part] == expected.metadata[part]
    assert got.metadata["training"]["loss"] == expected.metadata["training"]["loss"]


def test_what_was_found_is_not_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, steps=2)
    first = discover(tmp_path, config)
    monkeypatch.setattr(loop, "prepare", lambda *_: pytest.fail("searched again"))
    again = discover(tmp_path, config)
    chex.assert_trees_all_equal(again.log_alpha, first.log_alpha)
    assert json.dumps(again.metadata) == json.dumps(first.metadata)
    with pytest.raises(mg.MgnpError, match="circuit is of a search with another settings.steps;"):
        discover(tmp_path, dataclasses.replace(config, steps=3))


def test_seconds_of_all_parts_count(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        discover(tmp_path, stop_after=1)
    with contextlib.closing(States(tmp_path)) as states:
        model = tiny.model("gpt2")
        asked = (jax.random.key(0), model, tiny.data(model.config), CONFIG)
        circuit = mg.discover(*asked, saves=states)
        assert circuit.metadata["training"]["seconds"] > states.seconds > 0


def test_where_values_lie_and_when_states_are_saved_may_change(tmp_path: Path) -> None:
    expected = discover(None)
    with pytest.raises(KeyboardInterrupt):
        discover(tmp_path, stop_after=12)
    execution = dataclasses.replace(CONFIG.execution, cache_on="disk")
    got = discover(tmp_path, dataclasses.replace(CONFIG, execution=execution), every=0)
    chex.assert_trees_all_equal(got.log_alpha, expected.log_alpha)
    execution = dataclasses.replace(CONFIG.execution, dtype="bfloat16")
    with pytest.raises(mg.MgnpError, match="another settings"):
        discover(tmp_path, dataclasses.replace(CONFIG, execution=execution))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_stops_at_its_step_whatever_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    whole = step_module.objective

    def bad_at_14(log_alpha: Any, key: Any, config: Any, *others: Any) -> Any:
        # Of `model_config, params, runs, step, compaction`.
        loss, record = whole(log_alpha, key, config, *others)
        zero = jnp.where(others[3] == 13, jnp.nan if what == "loss" else 0.0, 1.0)
        if what == "gradient":
            # The root's slope at nothing is no number.
            leaf = jnp.sqrt(zero * jnp.square(log_alpha["mlp_hidden"]).sum())
            return loss + 0 * leaf, record
        return loss * zero, record | {"loss": loss * zero}

    monkeypatch.setattr(step_module, "objective", bad_at_14)
    # Compiled with it, and not to be met by other tests.
    config = dataclasses.replace(CONFIG, log_every=7, adam_eps=1.1e-8 if what == "loss" else 1.2e-8)
    told = "the loss is nan" if what == "loss" else "gradient of the loss has entries that are not"
    kept = tmp_path / "step-00000013"
    with pytest.raises(mg.MgnpError, match=f"{told}.* at step 14 ") as error:
        discover(tmp_path, config)
    work = loop.prepare(jax.random.key(0), tiny.model("gpt2"), tiny.data(tiny.GPT2), config, print)
    rows = ", ".join(map(str, work.read[work.order[13]].tolist()))
    assert f"on rows of the training prompts {rows}; the state of step 13 is in {kept}" in str(
        error.value
    )
    # And so it does when it is taken up.
    with pytest.raises(mg.MgnpError, match="at step 14 "):
        discover(tmp_path, config)


def test_prompts_on_which_the_model_itself_gives_no_numbers_are_shown(mini: mg.Model) -> None:
    data = mg.load_task("ioi", mini.tokenizer, extra_corruptions=0)
    lengths = np.asarray(data.train.attention_mask).sum(1)
    longest = np.flatnonzero(lengths == lengths.max())
    rows = np.r_[np.flatnonzero(lengths < lengths.max())[:5], longest[:1]]
    data = dataclasses.replace(data, train=data.train.take(rows))
    params = jax.tree.map(np.array, mini.params)
    params["embeddings"]["position"]["embedding"][lengths.max() - 1] = np.nan
    model = dataclasses.replace(mini, params=jax.tree.map(jnp.asarray, params))
    config = mg.DiscoverConfig(steps=2, batch_size=6, validation_prompts=4)
    with pytest.raises(mg.MgnpError, match="loss is nan at step 1 ") as error:
        mg.discover(jax.random.key(0), model, data, config)
    text = mini.tokenizer.decode(np.asarray(data.train.clean)[5].tolist())
    assert f"the whole model gives none, rows 5 ({text!r})" in str(error.value)


def test_a_search_by_another_metric_is_another_search(tmp_path: Path) -> None:
    model, config = tiny.model("gpt2"), dataclasses.replace(CONFIG, steps=2)
    data = dataclasses.replace(tiny.data(model.config), metric="logit_difference")
    for metric in ("logit_difference", "best_difference"):
        other = dataclasses.replace(data, metric=metric)
        with contextlib.closing(States(tmp_path)) as states:
            if metric == data.metric:
                mg.discover(jax.random.key(0), model, other, config, saves=states)
                continue
            with pytest.raises(mg.MgnpError, match="of a search with another metric"):
                mg.discover(jax.random.key(0), model, other, config, saves=states)
