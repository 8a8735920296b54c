"""Known ground truth: does training leave out nodes that provably cannot matter?

    python -m experiments.decoys --task ioi

gpt2-mini is widened with heads, MLP neurons and whole layers that are active and differ between
the streams, but write along the all-ones direction of the residual stream, which every
LayerNorm takes out. The model's logits are the same, and no circuit needs any of them.

That holds while all dimensions that an MLP writes are open: where some are closed, what a decoy
neuron of that MLP writes is no longer the same in all. So decoys write little.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import mgnp_jax as mg
from experiments.command import check_counts, command
from mgnp_jax.masks.granularities import mask_shapes
from mgnp_jax.report.tables import LABELS, Table

WRITTEN = np.float32(0.1)
"""Size of a decoy's output weights over that of the other nodes'."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoyConfig:
    """Finds a circuit with and without decoys and compares the two."""

    task: str = "ioi"
    """Built-in task."""
    heads: int = 4
    """Decoy heads in each layer of gpt2-mini."""
    hidden: int = 256
    """Decoy MLP neurons in each layer."""
    layers: int = 2
    """Decoy layers: after the first layers, one each."""
    seed: int = 0
    """Of prompts, gates and decoys."""
    test_prompts: int | None = 2000
    """Measure on the first so many test prompts only."""
    json: Path | None = None
    """Where to write the figures."""
    discover: Annotated[mg.DiscoverConfig, tyro.conf.arg(name="")] = mg.DiscoverConfig()
    """How circuits are found."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_counts(self.seed, self.test_prompts)
        if min(self.heads, self.hidden, self.layers) < 0:
            raise mg.MgnpError("--heads, --hidden and --layers must not be negative")


@dataclasses.dataclass(frozen=True)
class Widened:
    """A model with decoys.

    Attributes:
      model: the same function as the original's.
      real: [L] indices of the original layers.
      decoys: bool arrays by granularity; True is a decoy.
    """

    model: mg.Model
    real: np.ndarray
    decoys: dict[str, np.ndarray]


def with_decoys(model: mg.Model, *, heads: int, hidden: int, layers: int, seed: int) -> Widened:
    """Adds nodes that are active and cannot matter.

    Args:
      model: of GPT-2's family, whose norms all take the mean out.
      heads: decoy heads in each layer.
      hidden: decoy MLP neurons in each layer.
      layers: decoy layers, one after each of the first so many.
      seed: of their random weights.

    Raises:
      MgnpError: for a model of another family, or more decoy layers than it has layers.
    """
    c = model.config
    if layers > c.layers:
        raise mg.MgnpError(
            f"decoy layers must be at most {c.layers}, as {model.name} has, got {layers}"
        )
    if c.family != "gpt2":
        raise mg.MgnpError(
            f"decoys need LayerNorm, which takes out what all dimensions share; {model.name} is "
            f"of the family {c.family}, wanted gpt2"
        )
    rng = np.random.default_rng(seed)
    old = jax.device_get(model.params["blocks"])
    is_real = np.concatenate([[True, False] if i < layers else [True] for i in range(c.layers)])
    wide = dataclasses.replace(
        c,
        layers=len(is_real),
        heads=c.heads + heads,
        kv_heads=c.heads + heads,
        mlp_width=c.mlp_width + hidden,
    )

    def like(leaf: np.ndarray, *shape: int) -> np.ndarray:
        return (leaf.std() * rng.standard_normal(shape)).astype(np.float32)

    def along_ones(leaf: np.ndarray, rows: int) -> np.ndarray:
        return WRITTEN * like(leaf, rows, 1) * np.ones((1, c.width), np.float32)

    def layer(source: int, real: bool) -> dict[str, Any]:
        now = jax.tree.map(lambda leaf: leaf[source], old)
        more_heads = heads if real else wide.heads
        more_hidden = hidden if real else wide.mlp_width
        qkv, fc = now["c_attn"], now["c_fc"]
        parts = zip(np.split(qkv["kernel"], 3, 1), np.split(qkv["bias"], 3), strict=True)
        e = more_heads * c.head_width
        kernels, biases = [], []
        for kernel, bias in parts:
            extra = like(kernel, c.width, e)
            kernels.append(np.concatenate([kernel, extra], 1) if real else extra)
            biases.append(np.concatenate([bias, np.zeros(e, np.float32)]) if real else 0 * extra[0])
        extra = like(fc["kernel"], c.width, more_hidden)
        rows = along_ones(now["attn_proj"]["kernel"], e)
        out = along_ones(now["mlp_proj"]["kernel"], more_hidden)
        new = {
            "c_attn": {"kernel": np.concatenate(kernels, 1), "bias": np.concatenate(biases)},
            "attn_proj": {"kernel": rows, "bias": np.zeros(c.width, np.float32)},
            "c_fc": {"kernel": extra, "bias": 0 * extra[0]},
            "mlp_proj": {"kernel": out, "bias": np.zeros(c.width, np.float32)},
        }
        if real:
            new["c_fc"] = jax.tree.map(lambda a, b: np.concatenate([a, b], -1), fc, new["c_fc"])
            for name in ("attn_proj", "mlp_proj"):
                kernel = np.concatenate([now[name]["kernel"], new[name]["kernel"]])
                new[name] = {"kernel": kernel, "bias": now[name]["bias"]}
        return {**now, **new}

    sources = np.cumsum(is_real) - 1
    each = [layer(int(i), bool(real)) for i, real in zip(sources, is_real, strict=True)]
    blocks = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)
    decoys = {name: np.zeros(s, bool) for name, s in mask_shapes(wide).items()}
    for mask in decoys.values():
        mask[~is_real] = True
    for name in ("attention_heads", "attention_neurons"):
        decoys[name][:, c.heads :] = True
    decoys["mlp_hidden"][:, c.mlp_width :] = True
    return Widened(
        model=dataclasses.replace(
            model,
            name=f"{model.name}+decoys",
            config=wide,
            params={**model.params, "blocks": blocks},
        ),
        real=np.flatnonzero(is_real),
        decoys=decoys,
    )


def nested(log_alpha: mg.Masks) -> dict[str, np.ndarray]:
    """Log-alpha by which a node is open: no greater than that of the block and head it is in.

    Args:
      log_alpha: float arrays by granularity.
    """
    own = {name: np.asarray(leaf) for name, leaf in log_alpha.items()}
    blocks, mlps = own["attention_blocks"][:, None], own["mlp_blocks"][:, None]
    heads = np.minimum(own["attention_heads"], blocks)
    return {
        **own,
        "attention_heads": heads,
        "attention_neurons": np.minimum(own["attention_neurons"], heads[..., None]),
        "mlp_hidden": np.minimum(own["mlp_hidden"], mlps),
        "mlp_output": np.minimum(own["mlp_output"], mlps),
    }


def auc(kept: np.ndarray, decoys: np.ndarray) -> float:
    """Chance that a node that is kept has the larger log-alpha, ties counted half.

    Args:
      kept: [N] log-alpha of nodes that matter.
      decoys: [M] of nodes that cannot.
    """
    ranked = np.sort(decoys)
    below = np.searchsorted(ranked, kept, "left") + np.searchsorted(ranked, kept, "right")
    return float(below.mean() / (2 * len(ranked)))


def decoys(config: DecoyConfig, console: Console) -> dict[str, Any]:
    """Runs the comparison.

    Args:
      config: what to compare.
      console: where to report.

    Returns:
      The figures, as in the JSON file.
    """
    model = mg.load_model("gpt2-mini")
    data = mg.load_task(config.task, model.tokenizer, config.seed)
    test = data.test.take(slice(config.test_prompts))
    wide = with_decoys(
        model,
        heads=config.heads,
        hidden=config.hidden,
        layers=config.layers,
        seed=config.seed,
    )
    found = []
    for each in (model, wide.model):
        console.print(f"Finding the circuit of {config.task} in {each.name}")
        circuit = mg.discover(jax.random.key(config.seed), each, data, config.discover)
        found.append((circuit, mg.evaluate(each, circuit, test)))
    (plain, alone), (circuit, beside) = found
    result: dict[str, Any] = {
        "task": config.task,
        "seed": config.seed,
        "kl": {"without": alone["kl"], "with": beside["kl"]},
        "granularities": {},
    }
    c = model.config
    effective = nested(circuit.log_alpha)
    for name in mg.GRANULARITIES:
        mask, log_alpha = np.asarray(circuit.masks[name]), effective[name]
        decoy = wide.decoys[name]
        real = log_alpha[wide.real]
        if name in ("attention_heads", "attention_neurons"):
            real = real[:, : c.heads]
        if name == "mlp_hidden":
            real = real[:, : c.mlp_width]
        needed = np.asarray(plain.masks[name])
        result["granularities"][name] = {
            "decoys": int(decoy.sum()),
            "decoys_kept": int((mask & decoy).sum()),
            "real_kept": int((mask & ~decoy).sum()),
            "kept_without": int(needed.sum()),
            "auc": auc(real[needed], log_alpha[decoy]) if needed.any() and decoy.any() else None,
        }
    rows = [
        (
            LABELS[name],
            f"{row['decoys_kept']:,} of {row['decoys']:,}",
            f"{row['real_kept']:,}",
            f"{row['kept_without']:,}",
            "–" if row["auc"] is None else f"{row['auc']:.4f}",
        )
        for name, row in result["granularities"].items()
    ]
    columns = ("Granularity", "Decoys kept", "Others kept", "Kept without decoys", "AUC")
    title = f"{config.task}, seed {config.seed}: KL {beside['kl']:.4f}, without {alone['kl']:.4f}"
    console.print(Table(title=title, columns=columns, rows=tuple(rows)).rich())
    if config.json is not None:
        config.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    command(DecoyConfig, decoys)
