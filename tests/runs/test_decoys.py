"""Decoys are active and cannot matter, and the comparison counts them."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import mgnp_jax as mg
from mgnp_jax.masks.levels import NODE, level_of
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.runs import decoy_methods as module
from mgnp_jax.runs.decoy_config import DecoyConfig
from mgnp_jax.runs.decoy_methods import decoys_by_method
from mgnp_jax.runs.decoy_model import Widened, with_decoys
from mgnp_jax.runs.decoys import auc, compared, decoys
from mgnp_jax.runs.flags import with_method
from tests import tiny
from tests.experiments.test_commands import call_here

FEW: dict[str, Any] = {"decoy_heads": 1, "decoy_hidden": 8, "decoy_layers": 1, "test_prompts": 8}
SHORT = (
    *("node-pruning.steps=2", "node-pruning.batch-size=4", "node-pruning.validation-prompts=8"),
    *("hybrid.steps=2", "hybrid.batch-size=4", "hybrid.validation-prompts=8"),
    *("acdc.prompts=2", "acdc.most-tests=2"),
)


def test_decoys_differ_between_the_streams_and_change_no_logit(
    mini: mg.Model, mini_ioi: mg.TaskData
) -> None:
    batch = mini_ioi.train.take(slice(8))
    wide = with_decoys(mini, heads=3, hidden=40, layers=2, written=0.1, seed=0)
    c = wide.model.config
    assert (c.layers, c.heads, c.mlp_width) == (6, 11, mini.config.mlp_width + 40)
    assert wide.real.tolist() == [0, 2, 4, 5]
    got = plain_runs(c, wide.model.params, batch, share_prefix=False)
    expected = plain_runs(mini.config, mini.params, batch)
    np.testing.assert_allclose(got.base_logits, expected.base_logits, atol=1e-5)
    swapped = mg.Batch(
        clean=batch.corrupted,
        corrupted=batch.clean,
        attention_mask=batch.attention_mask,
        targets=batch.targets,
    )
    other = plain_runs(c, wide.model.params, swapped, share_prefix=False)
    (a,), (b,) = got.corrupted.values, other.corrupted.values
    heads = np.abs(np.asarray(a.attn_z - b.attn_z))[:, :, wide.decoys["attention_heads"][0]]
    assert heads.max() > 0.01
    z, hidden = np.asarray(a.attn_z - b.attn_z), np.asarray(a.mlp_hidden - b.mlp_hidden)
    assert np.abs(z).max((1, 3))[wide.decoys["attention_heads"]].min() > 1e-3
    assert (np.abs(hidden).max(1)[wide.decoys["mlp_hidden"]] > 1e-4).mean() > 0.9
    # Closing all of them is as good as the whole model.
    masks = {name: ~decoy for name, decoy in wide.decoys.items()}
    figures = mg.evaluate(wide.model, masks, batch)  # type: ignore[arg-type]
    assert figures["kl"] == pytest.approx(0, abs=1e-5)


def test_decoys_need_a_norm_that_takes_the_mean_out() -> None:
    with pytest.raises(mg.MgnpError, match="family llama"):
        with_decoys(tiny.model("llama"), heads=1, hidden=1, layers=0, written=0.1, seed=0)
    with pytest.raises(mg.MgnpError, match="at most 3, as tiny-gpt2 has, got 4"):
        with_decoys(tiny.model("gpt2"), heads=1, hidden=1, layers=4, written=0.1, seed=0)


def test_auc_counts_pairs() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == (1 + 0.5 + 1 + 1) / 4


def test_the_comparison_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DecoyConfig(
        **FEW,
        out=tmp_path / "out",
        json=tmp_path / "decoys.json",
        config=mg.DiscoverConfig(steps=2, batch_size=4, validation_prompts=8),
    )
    printed = io.StringIO()
    result = decoys(config, Console(file=printed, width=200))
    # Both searches are heard.
    assert printed.getvalue().count("step     2  KL ") == 2
    assert f"Saved to {tmp_path / 'out'}" in printed.getvalue()
    for file in (tmp_path / "decoys.json", tmp_path / "out" / "decoys.json"):
        assert json.loads(file.read_text()) == result
    # What was found is not searched again.
    monkeypatch.setattr(mg.DiscoverConfig, "find_from", lambda *_, **__: pytest.fail("searched"))
    assert decoys(config, Console(quiet=True)) == result
    heads = result["granularities"]["attention_heads"]
    assert heads["decoys"] == 4 + 9 and heads["kept_without"] == 32
    assert result["settings"]["config"]["steps"] == 2 and heads["auc"] is not None


@pytest.mark.parametrize(
    ("method", "least", "most"), [("magnitude", 0.99, 1.0), ("random", 0.1, 0.9)]
)
def test_any_method_may_be_asked(mini: mg.Model, method: str, least: float, most: float) -> None:
    wide = with_decoys(mini, heads=1, hidden=8, layers=1, written=0.1, seed=0)
    data = tiny.data(mini.config)
    plain, circuit = (
        mg.discover(jax.random.key(0), model, data, mg.METHODS[method]())
        for model in (mini, wide.model)
    )
    found = compared(mini.config, plain, wide, circuit)
    assert all(0 < row["auc"] <= 1 for row in found.values())
    # Decoys write a tenth of what others do, so the largest weights are not theirs.
    assert (found["mlp_hidden"]["decoys_kept"] == 0) == (method == "magnitude")
    # Chance is not near a half: a neuron comes no sooner than its MLP, and there are five of these.
    assert least < found["mlp_hidden"]["auc"] <= most


FEW_STEPS: dict[str, dict[str, Any]] = {
    "node-patching": {"prompts": 8},
    "node-pruning": {"steps": 40, "batch_size": 8, "validate_every": 40},
    "mattr": {"steps": 40, "batch_size": 8, "validate_every": 40},
    **{
        name: {"steps": steps, "batch_size": 4, "validate_every": steps}
        for name, steps in (("edge-pruning", 30), ("mattr-edges", 30), ("ugs", 8))
    },
}


@pytest.fixture(scope="module")
def planted(mini: mg.Model) -> tuple[Widened, mg.TaskData, dict[str, mg.Circuit]]:
    """A model with decoys, few prompts, and what matters without decoys, by level."""
    data = mg.load_task("ioi", mini.tokenizer, extra_corruptions=0)
    few = {"train": data.train.take(slice(16)), "validation": data.validation.take(slice(8))}
    data, plain = dataclasses.replace(data, **few), {}
    for method, keep in (("eap", 0.02), ("nap", 0.1)):
        config: Any = mg.METHODS[method]
        circuit = mg.discover(jax.random.key(0), mini, data, config(keep=keep))
        plain[level_of(circuit.masks).name] = circuit
    return with_decoys(mini, heads=2, hidden=8, layers=1, written=0.1, seed=0), data, plain


@pytest.mark.parametrize("method", ["eap", "eap-ig", "nap", "nap-ig", *FEW_STEPS])
def test_every_ranking_has_what_matters_above_the_decoys(
    mini: mg.Model, planted: Any, method: str
) -> None:
    wide, data, plain = planted
    config: Any = mg.METHODS[method]
    made = config(**FEW_STEPS.get(method, {}))
    circuit = mg.discover(jax.random.key(0), wide.model, data, made)
    level = level_of(circuit.masks)
    found = compared(mini.config, plain[level.name], wide, circuit)
    assert found["attention_heads"]["auc"] == 1.0
    if level is NODE:
        assert found["mlp_hidden"]["auc"] > 0.97
    else:
        assert found["mlp_hidden"]["auc"] is None
    if method not in FEW_STEPS:
        # What a decoy writes reaches no logit, so it has no effect.
        assert found["attention_heads"]["decoys_kept"] == 0


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[DecoyConfig, dict[str, Any], str]:
    config = DecoyConfig(
        **FEW,
        methods="magnitude,random,acdc,hybrid",
        settings=SHORT,
        out=tmp_path_factory.mktemp("decoys") / "several",
    )
    printed, quiet = io.StringIO(), Console(quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        # In place of a process for each: what they compile is shared.
        patch.setattr(module, "apart", lambda work, own, stop: work(own, quiet))
        return (
            config,
            decoys_by_method(config, Console(file=printed, width=250)),
            printed.getvalue(),
        )


def test_several_methods_are_in_one_table(
    several: tuple[DecoyConfig, dict[str, Any], str],
) -> None:
    config, found, printed = several
    results = {result["method"]: result for result in found["methods"]}
    assert [*results] == ["node-pruning", "magnitude", "random", "acdc", "hybrid"]
    assert json.loads((config.folder / "decoys.json").read_text()) == found
    for name, result in results.items():
        assert json.loads((config.folder / name / "decoys.json").read_text()) == result
        # What ranks nothing has no figure, and is there nevertheless.
        areas = {kind: row["auc"] is not None for kind, row in result["granularities"].items()}
        assert areas["attention_heads"] == result["ranks"] == (name != "acdc")
        assert areas["mlp_hidden"] == (name in ("node-pruning", "magnitude", "random"))
        assert result["level"] == ("edge" if name in ("acdc", "hybrid") else "node")
        assert min(result["seconds"].values()) > 0
    page = (config.folder / "decoys.md").read_text().replace("\\", "")
    for text in (printed, page):
        assert "what ranks nothing (acdc)" in text
        assert "† hybrid: within the circuit of another search" in text
    area = results["magnitude"]["granularities"]["mlp_hidden"]["auc"]
    (row,) = [line for line in page.splitlines() if line.startswith("| magnitude | nodes")]
    assert f"{area:.4f}" in row
    assert "| acdc | – | – |" in page


def test_each_method_is_as_large_as_the_first_in_either_model(
    several: tuple[DecoyConfig, dict[str, Any], str], mini: mg.Model
) -> None:
    config, _, _ = several
    wide = with_decoys(mini, heads=1, hidden=8, layers=1, written=0.1, seed=0).model
    for part, model in (("without", mini), ("with", wide)):
        ours = mg.load_circuit(config.folder / "node-pruning" / part).masks
        for name in ("magnitude", "random"):
            found = mg.load_circuit(config.folder / name / part).masks
            assert {n: int(m.sum()) for n, m in ours.items()} == {
                n: int(m.sum()) for n, m in found.items()
            }
        between = level_of(ours).edges(model.config, ours)
        hybrid = mg.load_circuit(config.folder / "hybrid" / part).masks
        assert not any((np.asarray(m) & ~np.asarray(between[n])).any() for n, m in hybrid.items())


def test_one_of_several_methods_can_be_sent_to_a_process() -> None:
    # The command's own class, whose flags depend on the method, cannot.
    asked = with_method(DecoyConfig, ())(methods="all", settings=SHORT, **FEW)
    assert asked.names == tuple(mg.METHODS)
    for name in asked.names:
        own = asked.of(name, Path("out") / name)
        assert pickle.loads(pickle.dumps(own)) == own
        assert (own.method, own.decoy_hidden, own.methods) == (name, 8, None)
    assert asked.of("acdc", Path("out")).config.most_tests == 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"methods": "eap,nonsense"}, "unknown method 'nonsense': wanted one of node-pruning"),
        ({"methods": "eap", "settings": ("eap.steps=3",)}, "the fields of eap are effect_on, .*"),
        ({"methods": "eap", "settings": ("eap.keep=3",)}, r"keep must lie in \(0, 1\], got 3.0"),
        ({"settings": ("eap.keep=0.1",)}, "--set goes with --methods"),
        ({"methods": "eap", "config": mg.DiscoverConfig(steps=2)}, "goes without --method and its"),
        ({"methods": "eap", "config": mg.METHODS["nap"]()}, "goes without --method and its"),
        (
            {"methods": "eap", "settings": ("node-pruning.ablation=mean",)},
            "node-pruning has mean, but eap has interchange",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(mg.MgnpError, match=told):
        DecoyConfig(**asked)


def test_another_circuit_must_be_there_for_either_model(
    several: tuple[DecoyConfig, dict[str, Any], str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config, found, _ = several
    few = [w for n, v in FEW.items() for w in (f"--{n.replace('_', '-')}", v)]
    asked = ("--method", "magnitude", *few, "--out", tmp_path / "out", "--like")
    assert call_here("experiments.decoys", *asked, config.folder / "node-pruning" / "with") == 2
    assert "--like must be the folder of a comparison with decoys" in capfd.readouterr().err
    assert call_here("experiments.decoys", *asked, config.folder / "node-pruning") == 0
    result = json.loads((tmp_path / "out" / "decoys.json").read_text())
    (same,) = [each for each in found["methods"] if each["method"] == "magnitude"]
    assert result["granularities"] == same["granularities"]
