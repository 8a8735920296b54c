"""Whatever lies in a file of EAP-IG's: it is read as a circuit, or our own error says why."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

import mgnp_jax as mg
from mgnp_jax.masks.levels import check_masks
from tests.masks.test_mib import BY_HAND, ONE, ranked
from tests.tasks.test_fuzz import COUNTS, EDITS, alone, edited, quick_and_clean, tried

__all__ = ["alone"]

NASTY = (None, True, False, 0, -1, 2**40, 10**400, 0.5, math.nan, math.inf, "", "q", [], {}, [[]])


def spoilt(tree: Any, rng: random.Random) -> Any:
    """The same with one value, somewhere, replaced, gone or under another name."""
    if not isinstance(tree, dict) or not tree or rng.random() < 0.15:
        return rng.choice(NASTY)
    name = rng.choice([*tree])
    copy = dict(tree)
    kind = rng.random()
    if kind < 0.1:
        del copy[name]
    elif kind < 0.2:
        copy[rng.choice(["input->m1", "", "logits", f"{name} "])] = copy.pop(name)
    else:
        copy[name] = spoilt(copy[name], rng)
    return copy


def check_file(file: Path, found: list[mg.Circuit]) -> None:
    circuit = mg.import_mib(file, ONE)
    check_masks(ONE, circuit.masks)
    if circuit.scores is not None:
        circuit.at(keep=0.5)
    found.append(circuit)


@pytest.mark.parametrize("count", COUNTS)
def test_any_json_is_read_or_refused(
    alone: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
    count: int,
) -> None:
    file = alone / "c.json"
    file.touch()
    found: list[mg.Circuit] = []

    def check(example: tuple[int, list[tuple[float, int, bytes]]]) -> None:
        seed, edits = example
        tree = json.loads(BY_HAND)
        text = BY_HAND if seed % 2 else json.dumps(spoilt(tree, random.Random(seed)))
        file.write_bytes(edited(text.encode(), edits))
        with quick_and_clean(alone, capfd):
            check_file(file, found)

    tried(count, st.tuples(st.integers(0, 2**32), st.just([]) | EDITS), check)
    assert count / 20 < len(found) < count


class Run:
    """What a pickle could do to whoever loads it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("harm"),)


def tensors(torch: Any) -> tuple[Any, ...]:
    """Tensors of other shapes and types than are wanted, or of more than there is memory for."""
    one = torch.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.quantize_per_tensor(torch.zeros(4, 8), 1.0, 0, torch.qint8)
    return (
        torch.zeros(4, 8, dtype=torch.int64),
        torch.full((4, 8), math.inf),
        torch.full((4, 8), math.nan),
        torch.ones(4, 8, dtype=torch.bool),
        torch.ones(4, 12, dtype=torch.bool),
        torch.zeros(4, 12, dtype=torch.bool),
        torch.zeros(4, 8, dtype=torch.complex64),
        torch.zeros(4, 8).to_sparse(),
        torch.zeros(4, 8, requires_grad=True),
        packed,
        torch._neg_view(torch.ones(4, 8)),
        torch.zeros(4, 8, device="meta"),
        torch.zeros(4, 8, dtype=torch.bfloat16),
        one.expand(10**9, 10**3),
        one.expand(4, 8),
    )


@pytest.mark.parametrize("count", COUNTS)
def test_any_pt_is_read_or_refused(
    alone: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
    count: int,
) -> None:
    torch: Any = pytest.importorskip("torch")
    file = alone / "c.pt"
    mg.export_mib(ranked(ONE), ONE, file)
    whole, raw = torch.load(file, weights_only=True), file.read_bytes()
    others = tensors(torch)
    found: list[mg.Circuit] = []

    def check(example: tuple[int, list[tuple[float, int, bytes]]]) -> None:
        seed, edits = example
        rng = random.Random(seed)
        if seed % 2:
            file.write_bytes(edited(raw, edits))
        else:
            changed = {**whole, "neurons_in_graph": others[4]}
            name = rng.choice([*changed])
            changed[name] = rng.choice([*others, *NASTY, changed[name], [*map(str, range(4))]])
            torch.save(changed if rng.random() < 0.9 else rng.choice(NASTY), file)
        with quick_and_clean(alone, capfd):
            check_file(file, found)

    tried(count, st.tuples(st.integers(0, 2**32), st.just([]) | EDITS), check)
    assert count / 20 < len(found) < count


def test_a_pickle_runs_nothing(alone: Path) -> None:  # noqa: F811
    torch: Any = pytest.importorskip("torch")
    mg.export_mib(ranked(ONE), ONE, alone / "good.pt")
    whole = torch.load(alone / "good.pt", weights_only=True)
    torch.save({**whole, "more": Run()}, alone / "c.pt")
    torch.save({**whole, "more": Run()}, alone / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(mg.MgnpError, match="c.pt cannot be read as tensors, numbers and text"):
        mg.import_mib(alone / "c.pt", ONE)
    with pytest.raises(mg.MgnpError, match="old.pt is no archive as torch.save makes it"):
        mg.import_mib(alone / "old.pt", ONE)
    assert not (alone / "harm").exists()


def test_a_pt_without_scores_or_with_nodes_in_part(alone: Path) -> None:  # noqa: F811
    torch: Any = pytest.importorskip("torch")
    circuit = ranked(ONE)
    mg.export_mib(circuit, ONE, alone / "c.pt")
    whole = torch.load(alone / "c.pt", weights_only=True)
    scores = whole.pop("edges_scores")
    torch.save(whole, alone / "binary.pt")
    assert mg.import_mib(alone / "binary.pt", ONE).scores is None
    # Where the graph has no edge, upstream may write anything.
    everywhere = torch.ones_like(whole["edges_in_graph"])
    torch.save({**whole, "edges_in_graph": everywhere, "edges_scores": scores}, alone / "all.pt")
    check_masks(ONE, mg.import_mib(alone / "all.pt", ONE).masks)
    neurons = torch.ones(4, 12, dtype=torch.bool)
    torch.save({**whole, "neurons_in_graph": neurons}, alone / "neurons.pt")
    mg.import_mib(alone / "neurons.pt", ONE)
    neurons[0, 3] = False
    torch.save({**whole, "neurons_in_graph": neurons}, alone / "part.pt")
    with pytest.raises(mg.MgnpError, match="of node 'input' some neurons are left out"):
        mg.import_mib(alone / "part.pt", ONE)
