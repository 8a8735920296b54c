"""Methods are open: every one in the table, and any other, goes through the same command."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.masks.edge_graph import edges_between
from mgnp_jax.masks.edges import Graph
from mgnp_jax.masks.hierarchy import apply_hierarchy
from mgnp_jax.methods.magnitude import MagnitudeConfig, magnitudes
from mgnp_jax.methods.node_pruning.published import PublishedConfig, once_each
from mgnp_jax.methods.random_nodes import RandomConfig
from mgnp_jax.metrics.curves import KEEPS
from mgnp_jax.runs.config import RunConfig, finished
from mgnp_jax.runs.run import ensured, run
from mgnp_jax.runs.stopping import Stopped
from tests import tiny
from tests.experiments.test_commands import call_here

SHORT: dict[str, list[object]] = {
    "node-pruning": ["--steps", 2, "--validation-prompts", 8],
    "node-pruning-published": ["--steps", 2, "--validation-prompts", 8],
    "eap": ["--extra-corruptions", 0],
    "eap-ig": ["--ig-steps", 2, "--extra-corruptions", 0],
    "nap": ["--extra-corruptions", 0],
    "nap-ig": ["--ig-steps", 2, "--extra-corruptions", 0],
    "acdc": ["--prompts", 4, "--most-tests", 40],
    "node-patching": ["--prompts", 8],
    "edge-pruning": ["--steps", 2, "--validation-prompts", 8],
    "hybrid": ["--steps", 2, "--validation-prompts", 8],
    "ugs": ["--steps", 2, "--draws", 2, "--validation-prompts", 8],
    "mattr": ["--steps", 2, "--validation-prompts", 8],
    "mattr-edges": ["--steps", 2, "--validation-prompts", 8],
}

OFTEN = ("nap-ig", "acdc", "hybrid", "mattr", "magnitude", "random")
"""One of every kind; the others differ from one of these by what `find` does, tested by itself.

Node pruning goes through all commands in other tests."""


def find(model: mg.Model, config: Any, seed: int = 0, data: Any = None) -> mg.Circuit:
    return mg.discover(jax.random.key(seed), model, data or tiny.data(model.config), config)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.full) for name in mg.METHODS],
)
@pytest.mark.slow
def test_every_method_runs_through_the_same_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "run"
    few: tuple[object, ...] = ("--test-prompts", 8, "--control-prompts", 4, *SHORT.get(name, []))
    if any(field.name == "within" for field in dataclasses.fields(mg.METHODS[name])):  # type: ignore[arg-type]
        model = mg.load_model("gpt2-mini")
        find(model, MagnitudeConfig(keep=0.3), data=mg.load_task("ioi", model.tokenizer)).save(
            tmp_path / "nodes"
        )
        few += ("--within", tmp_path / "nodes")
    assert call_here("experiments.run", "--task", "ioi", "--method", name, "--out", out, *few) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["method"] == name and results["training"]["seconds"] > 0
    assert results["training"]["peak_mb"] > 100
    assert set(results["controls"]) == {"circuit", "random", "complement", "empty"}
    config = json.loads((out / "config.json").read_text())
    assert config["method"] == name
    assert set(config["config"]) == {f.name for f in dataclasses.fields(mg.METHODS[name])}  # type: ignore[arg-type]
    capsys.readouterr()
    assert call_here("experiments.evaluate", "--circuit", out) == 0
    assert "Saved" in capsys.readouterr().out


def test_the_papers_protocol_takes_any_method(tmp_path: Path) -> None:
    out = tmp_path / "paper"
    arguments = ("--method", "magnitude", "--keep", 0.2, "--seeds", 1, "--test-prompts", 8)
    assert call_here("experiments.paper", "--out", out, "--tasks", "gp", *arguments) == 0
    assert "Table 5. gp" in (out / "tables.md").read_text()
    from mgnp_jax.runs.paper import PaperConfig, protocol

    config = PaperConfig(
        tasks=("gp",), seeds=1, out=out, test_prompts=8, config=MagnitudeConfig(keep=0.3)
    )
    assert config.method == "magnitude"
    with pytest.raises(mg.MgnpError, match="seed0 was run with another keep"):
        protocol(config, Console(quiet=True))
    with pytest.raises(mg.MgnpError, match="'random' and a config of 'magnitude'"):
        PaperConfig(method="random", config=MagnitudeConfig())


def test_an_unknown_method_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call_here("experiments.run", "--task", "ioi", "--method", "guess") == 2
    assert "unknown method 'guess': wanted one of node-pruning, " in capsys.readouterr().err


def test_a_flag_of_another_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call_here("experiments.run", "--task", "ioi", "--method", "random", "--steps", 3) == 2
    assert "--steps" in capsys.readouterr().err


def test_a_nested_run_leaves_the_circuits_of_every_size(tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ("--steps", 2, "--validation-prompts", 8, "--test-prompts", 8, "--control-prompts", 4)
    assert call_here("experiments.run", "--task", "ioi", "--out", out, *few) == 0
    curve = json.loads((out / "results.json").read_text())["curve"]
    assert [row["keep"] for row in curve] == list(KEEPS)
    circuit, model = mg.load_circuit(out), mg.load_model("gpt2-mini")
    test = mg.load_task("ioi", model.tokenizer).test.take(slice(4))
    for row in curve[-3:]:
        figures = mg.evaluate(model, circuit.at(keep=row["keep"]), test)
        np.testing.assert_allclose(row["kl"], figures["kl"], rtol=1e-5, atol=1e-6)
    assert curve[-1]["kl"] == pytest.approx(0.0, abs=1e-6)
    with (out / "curve.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(KEEPS)
    told = (out / "README.md").read_text()
    assert "curve.png" in told and "Circuits of every size, on the first 4 test prompts" in told
    assert (out / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize("config", [RandomConfig, MagnitudeConfig])
def test_as_many_nodes_of_every_kind_as_another_circuit(config: type[Any], tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    pruned = mg.DiscoverConfig(
        steps=20, batch_size=4, learning_rate=0.5, nested=False, penalty=20.0, warmup=0.0
    )
    other = find(model, pruned)
    other.save(tmp_path / "other")
    counts = {name: int(mask.sum()) for name, mask in other.masks.items()}
    assert 0 < counts["mlp_hidden"] < 60
    found = find(model, config(like=tmp_path / "other"), seed=1)
    assert {name: int(mask.sum()) for name, mask in found.masks.items()} == counts
    chex.assert_trees_all_equal(found.masks, apply_hierarchy(found.masks))
    again = find(model, config(like=tmp_path / "other"), seed=1)
    chex.assert_trees_all_equal(found.masks, again.masks)
    with pytest.raises(mg.MgnpError, match="do not fit this model"):
        find(tiny.model("llama"), config(like=tmp_path / "other"))


@pytest.mark.parametrize("config", [RandomConfig, MagnitudeConfig])
def test_a_share_of_heads_and_neurons_wherever_they_are(config: type[Any]) -> None:
    model = tiny.model("llama")
    kept = find(model, config(keep=0.5)).masks
    assert kept["mlp_hidden"].sum() == 30 and kept["attention_heads"].sum() == 6
    # Several layers have some, none has just all of them.
    assert len(set(np.asarray(kept["mlp_hidden"]).sum(1).tolist())) > 1
    assert kept["mlp_blocks"].all() and not kept["attention_heads"].all(1).all()
    assert mg.circuit_sizes(model.config, kept)["parameters"]["prunable_kept"] == pytest.approx(
        0.5, abs=0.1
    )
    with pytest.raises(mg.MgnpError, match=r"keep must lie in \(0, 1\], got 0"):
        find(model, config(keep=0.0))


def test_random_circuits_differ_by_their_key() -> None:
    model = tiny.model("gpt2")
    first, again, other = (find(model, RandomConfig(keep=0.5), seed).masks for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (first["mlp_hidden"] != other["mlp_hidden"]).any()


@pytest.mark.parametrize("level", ["node", "edge"])
def test_random_rankings_begin_with_what_is_as_large_as_another_circuit(
    tmp_path: Path, level: str
) -> None:
    model = tiny.model("gpt2")
    masks = find(model, MagnitudeConfig(keep=0.5)).masks
    like = masks if level == "node" else edges_between(Graph.of(model.config), masks)
    mg.Circuit(masks=like, metadata={}).save(tmp_path / "like")
    circuit = find(model, RandomConfig(like=tmp_path / "like"))
    assert circuit.scores is not None and circuit.metadata["level"] == level
    counted = circuit.masks if level == "node" else circuit.scores
    wanted = {name: int(np.sum(mask)) for name, mask in like.items()}
    if level == "node":
        assert {name: int(np.sum(mask)) for name, mask in counted.items()} == wanted
    else:
        # What leads nowhere is left out of the circuit, not of the ranking.
        assert {name: int((np.asarray(s) >= 1).sum()) for name, s in counted.items()} == wanted
    for name, mask in circuit.masks.items():
        score = np.asarray(circuit.scores[name])
        assert score[np.asarray(mask)].min() >= 1
        if level == "node":
            assert score[~np.asarray(mask)].max(initial=0) < 1
    smaller, larger = (circuit.at(edges=edges) for edges in (40, 100))
    sizes = [mg.circuit_sizes(model.config, each.masks)["edges"] for each in (smaller, larger)]
    assert 0 < sizes[0]["active"] <= 40 < sizes[1]["active"] <= 100


def test_magnitudes_by_hand(any_block: mg.Model) -> None:
    c = any_block.config
    scores = magnitudes(c, any_block.params)
    down = np.asarray(any_block.params["blocks"]["mlp"]["down"]["kernel"])
    rows = np.linalg.norm(down, axis=-1)
    np.testing.assert_allclose(scores["mlp_hidden"], rows / rows.mean(), rtol=1e-4)
    out = np.asarray(any_block.params["blocks"]["attention"]["o"]["kernel"])
    heads = np.linalg.norm(out.reshape(c.layers, c.heads, -1), axis=-1)
    np.testing.assert_allclose(scores["attention_heads"], heads / heads.mean(), rtol=1e-4)
    for name, leaf in mg.full_masks(c).items():
        chex.assert_equal_shape([scores[name], leaf])
        assert float(scores[name].mean()) == pytest.approx(1, rel=1e-4)


def test_the_strongest_nodes_are_kept_and_the_ranking_is_saved(tmp_path: Path) -> None:
    model = tiny.model("gpt2")
    circuit = find(model, MagnitudeConfig(keep=0.5))
    assert circuit.scores is not None and circuit.log_alpha is None
    kept = np.asarray(circuit.masks["mlp_hidden"])
    scores = np.asarray(circuit.scores["mlp_hidden"])
    assert scores[kept].min() > scores[~kept].max()
    circuit.save(tmp_path / "c")
    loaded = mg.load_circuit(tmp_path / "c")
    assert loaded.log_alpha is None
    chex.assert_trees_all_equal(loaded.scores, circuit.scores)


def test_the_published_preset_is_appendix_c_on_means() -> None:
    model = tiny.model("gpt2")
    data = dataclasses.replace(tiny.data(model.config), name="ioi")
    settings = PublishedConfig(batch_size=4).settings(model.config, data)
    sizes = {name: leaf.size for name, leaf in mg.full_masks(model.config).items()}
    prices = dataclasses.asdict(settings.penalties)
    weights = {name: prices[name] * n for name, n in sizes.items()}
    wanted = {"attention_heads": 3.0, "mlp_hidden": 5.0, "mlp_output": 1.5}
    wanted |= {"attention_neurons": 1.5, "attention_blocks": 0.2, "mlp_blocks": 0.1}
    assert weights == pytest.approx(wanted)
    # Ten prompts, four a step, five hundred epochs.
    assert settings.steps == 1250 and settings.warmup == pytest.approx(500 / 1250)
    assert (settings.gates, settings.draws, settings.loss) == ("soft", "batch", "hinge")
    assert settings.learning_rate * settings.final_rate == pytest.approx(1e-4)
    pronouns = PublishedConfig().settings(model.config, dataclasses.replace(data, name="gp"))
    assert (pronouns.margin, pronouns.clip_norm) == (0.1, 1.0)


def test_the_published_loss_is_kl_and_a_hinge() -> None:
    model = tiny.model("gpt2")
    records: list[dict[str, Any]] = []
    data = dataclasses.replace(tiny.data(model.config), name="ioi")
    config = PublishedConfig(steps=3, batch_size=4, log_every=1)
    circuit = mg.discover(jax.random.key(0), model, data, config, on_record=records.append)
    steps = [record for record in records if "loss" in record]
    # The first step comes before any price; later ones pay their part of it.
    for i, record in enumerate(steps):
        expected = record["kl"] + record["hinge"] + min(1.0, i / 3) * record["penalty"]
        assert record["loss"] == pytest.approx(expected, rel=1e-5)
    starts = np.concatenate([np.ravel(x) for x in jax.tree.leaves(circuit.log_alpha)])
    assert 0.3 < starts.min() and starts.max() < 1.2 and starts.std() > 0.05
    assert circuit.metadata["settings"]["gates"] == "soft"
    assert "the last" in circuit.metadata["note"]


def test_one_corruption_a_prompt_is_the_tasks_own(mini: mg.Model) -> None:
    with_more, alone = (
        mg.load_task("gp", mini.tokenizer, seed=0, extra_corruptions=n).train for n in (3, 0)
    )
    assert len(with_more) == 4 * len(alone)
    chex.assert_trees_all_equal(once_each(with_more), alone)


def test_rows_of_ones_own_are_all_trained_on() -> None:
    model = tiny.model("gpt2")
    data = tiny.data(model.config)
    data = dataclasses.replace(data, train=data.train.take(np.array([0, 0, 1, 1])))
    records: list[dict[str, Any]] = []
    config = PublishedConfig(steps=1, batch_size=4)
    mg.discover(jax.random.key(0), model, data, config, on_record=records.append)
    assert any("loss" in record for record in records)
    with pytest.raises(mg.MgnpError, match="steps must be greater than 0, got 0"):
        PublishedConfig(steps=0)
    with pytest.raises(mg.MgnpError, match="batch_size must be greater than 0, got 0"):
        PublishedConfig(batch_size=0)


def test_the_kl_that_is_matched_must_be_the_prompts_own() -> None:
    with pytest.raises(mg.MgnpError, match="kl_over must be .*they have none.* got 'kl_years'"):
        find(tiny.model("gpt2"), mg.DiscoverConfig(steps=1, kl_over="kl_years"))
    with pytest.raises(mg.MgnpError, match="choose must be last with the loss hinge"):
        mg.DiscoverConfig(loss="hinge", nested=False)
    # Nothing is chosen by its score where the last ranking counts.
    assert mg.DiscoverConfig(loss="hinge").nested


def test_the_kl_over_some_tokens_is_matched(mini: mg.Model) -> None:
    data = mg.load_task("gt", mini.tokenizer, seed=0)
    few = dataclasses.replace(data, validation=data.validation.take(slice(8)))
    losses = []
    for name in (None, "kl_years"):
        records: list[dict[str, Any]] = []
        config = mg.DiscoverConfig(steps=1, batch_size=4, kl_over=name)
        mg.discover(jax.random.key(0), mini, few, config, on_record=records.append)
        losses.append(next(record["kl"] for record in records if "loss" in record))
    assert 0 < losses[1] < losses[0]


def test_a_stopped_search_of_any_method_is_no_finished_run(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Unlucky:
        """Is interrupted with what it has."""

        name = "stopped"

        def find(self, key: Any, model: mg.Model, data: Any, on_record: Any) -> mg.Circuit:
            raise mg.Interrupted(mg.Circuit(masks=mg.full_masks(model.config), metadata={}))

    out = tmp_path / "run"
    config = RunConfig(task="ioi", out=out, test_prompts=8, config=Unlucky())
    with pytest.raises(Stopped, match="the best circuit so far, not measured"):
        run(config, Console(quiet=True))
    assert mg.load_circuit(out).metadata["training"]["interrupted"]
    assert finished(out, config) is None and not (out / "results.json").exists()


def test_a_folder_of_an_older_version_is_not_taken_for_a_finished_run(tmp_path: Path) -> None:
    old = {"task": "ioi", "data": None, "model": "gpt2-mini", "seed": 0, "discover": {"steps": 9}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "results.json").write_text(json.dumps({"training": {}}))
    wanted = RunConfig(task="ioi", out=tmp_path)
    assert finished(tmp_path, wanted) is None
    with pytest.raises(mg.MgnpError, match="is not an empty folder"):
        ensured(wanted, Console(quiet=True))
    assert json.loads((tmp_path / "config.json").read_text()) == old


def test_settings_named_as_flags_of_the_command_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Clashing:
        """Has a seed of its own."""

        name = "clashing"
        seed: int = 1

    monkeypatch.setitem(mg.METHODS, "clashing", Clashing)  # type: ignore[arg-type]
    assert call_here("experiments.run", "--task", "ioi", "--method", "clashing") == 2
    assert "has the settings seed, which are flags" in capsys.readouterr().err


@pytest.mark.parametrize("draws", ["prompt", "batch"])
def test_a_batch_may_share_one_draw(draws: Any) -> None:
    from mgnp_jax.methods.node_pruning.gates import sample_masks

    log_alpha = mg.full_masks(tiny.GPT2, 0.0)
    config = mg.DiscoverConfig(draws=draws, nested=False)
    masks = sample_masks(jax.random.key(0), log_alpha, config, 1.0, 5)
    for name, mask in masks.items():
        chex.assert_shape(mask, (3, 5, *log_alpha[name].shape[1:]))
        assert bool((mask == mask[:, :1]).all()) == (draws == "batch"), name


def test_masks_that_the_hierarchy_closes_are_closed_for_every_method() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Careless:
        """Keeps heads and none of their neurons."""

        name = "careless"

        def find(self, key: Any, model: mg.Model, data: Any, on_record: Any) -> mg.Circuit:
            masks = mg.full_masks(model.config)
            masks["attention_neurons"] = jnp.zeros_like(masks["attention_neurons"])
            return mg.Circuit(masks=masks, metadata={})

    circuit = find(tiny.model("gpt2"), Careless())
    assert not circuit.masks["attention_heads"].any() and circuit.masks["mlp_blocks"].all()
    # And it is said.
    assert "12 attention_heads" in circuit.metadata["note"]
    assert circuit.masks["mlp_hidden"].dtype == bool
