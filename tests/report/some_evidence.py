"""Evidence as `Evidence.as_page()` returns it, of random numbers, for tests of the page."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

import mgnp_jax as mg
from mgnp_jax.masks.granularities import NEURONS, mask_shapes

KINDS = ("to_answer", "to_wrong_answer", "to_repeated", "to_first", "to_previous")
CLEAN = "Then Mary and John spent the day at the park, and John gave a book to"
CORRUPTED = "Then Emma and Paul spent the day at the park, and Anna gave a book to"


def some_evidence(
    model_config: mg.ModelConfig, circuit: mg.Circuit, prompts: list[list[str]] | None = None
) -> dict[str, Any]:
    """Every field of it.

    Args:
      model_config: the model's shape.
      circuit: of nodes.
      prompts: tokens of each clean prompt; two ordinary ones by default.
    """
    rng = np.random.default_rng(0)
    c, kept = model_config, {n: np.asarray(m, bool) for n, m in circuit.masks.items()}
    tokens = prompts or [_tokens(CLEAN), _tokens(CLEAN.replace("Mary", "Lisa"))]
    longest = max(map(len, tokens))
    heads = [[int(n), int(h)] for n, h in np.argwhere(kept["attention_heads"])]

    def effects(everywhere: bool) -> dict[str, Any]:
        found = {}
        for name, shape in mask_shapes(c).items():
            where = np.ones(shape, bool) if everywhere and name not in NEURONS else kept[name]
            drawn = [np.where(where, rng.normal(size=shape) - 0.5, np.nan) for _ in range(2)]
            exact = np.full(shape, name not in NEURONS) | (rng.random(shape) < 0.02)
            found[name] = {
                **{figure: _lists(value) for figure, value in zip(("score", "kl"), drawn)},
                "exact": exact.tolist(),
            }
        return found

    rows = [
        [int(n), int(f), [[f" word{i}", round(float(x), 3)] for i, x in enumerate(rng.random(10))]]
        for n, f in np.argwhere(kept["mlp_hidden"])[:20]
    ]
    size = (len(tokens), len(heads), longest, longest)
    return {
        "task": "ioi",
        "model": "gpt2-mini",
        "prompts_used": 16,
        "scores": dict.fromkeys(("model", "circuit", "corrupted"), {"score": 1.0, "kl": 0.1}),
        "removal": effects(False),
        "addition": effects(True),
        "positions": {
            "attention_heads": _lists(rng.normal(size=(len(tokens), c.layers, c.heads, longest))),
            "mlp_blocks": _lists(rng.normal(size=(len(tokens), c.layers, longest))),
        },
        "examples": [_example(part) for part in tokens],
        "patterns": {
            "heads": heads,
            **{run: _pattern(rng, size) for run in ("clean", "corrupted", "circuit")},
        },
        "attends": {kind: _lists(rng.random((c.layers, c.heads))) for kind in KINDS},
        "writes": {
            "attention_heads": {
                "direct": _lists(rng.normal(size=(c.layers, c.heads))),
                "towards": [[n, h, [[" Mary", 2.5], [" John", 1.5]]] for n, h in heads],
                "away": [[n, h, [[" park", -1.5]]] for n, h in heads],
            },
            "mlp_hidden": {
                "direct": _lists(np.where(kept["mlp_hidden"], 0.25, np.nan)),
                "towards": rows,
                "away": rows,
            },
        },
        "drivers": [[n, f, [[0, 1, 3.5], [len(tokens), 2, 2.5]]] for n, f, _ in rows],
        "edge_prompts": 2,
        "driver_prompts": ["".join(part) for part in [*tokens, ["One", " more"]]],
        "edges": [["input", f"a{n}.h{h}<q>", 0.5] for n, h in heads]
        + [[f"a{n}.h{h}", "logits", -0.1 * (i + 1)] for i, (n, h) in enumerate(heads)],
        "lens": {
            run: {
                "score": _lists(np.linspace(0, 8, c.layers + 1)),
                "answer_probability": _lists(np.linspace(0, 1, c.layers + 1)),
                "answer_rank": _lists(np.linspace(500, 1, c.layers + 1)),
            }
            for run in ("model", "circuit")
        },
        "votes": {n: _lists(np.where(m, 0.75, 0.25)) for n, m in kept.items()},
        "seconds": 1.0,
        "peak_mb": 100.0,
    }


def _tokens(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _example(clean: list[str]) -> dict[str, Any]:
    corrupted = [*clean]
    corrupted[1] = " Emma"
    return {
        "clean": "".join(clean),
        "corrupted": "".join(corrupted),
        "clean_tokens": clean,
        "corrupted_tokens": corrupted,
        "answers": [clean[1]],
        "wrong_answers": [" John"],
        "top": {
            run: [[clean[1], 0.75], [" John", 0.125], [" park", 0.0625], [" a", 0.01], [" to", 0.0]]
            for run in ("model", "circuit", "corrupted")
        },
    }


def _pattern(rng: np.random.Generator, size: tuple[int, ...]) -> dict[str, Any]:
    """Rows that sum to 1, as bytes."""
    drawn = np.tril(rng.exponential(size=size) ** 2 + 1e-9)
    values = np.round(255 * drawn / drawn.sum(-1, keepdims=True)).astype(np.uint8)
    return {"data": base64.b64encode(values.tobytes()).decode(), "shape": list(size)}


def _lists(values: np.ndarray) -> Any:
    """Nested lists, rounded, None for what is not known."""
    rounded = np.round(values, 4)
    found = rounded.astype(object)
    found[np.isnan(rounded)] = None
    return found.tolist()
