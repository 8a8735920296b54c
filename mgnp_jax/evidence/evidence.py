"""What was found about the nodes of a circuit: its fields, saving, loading, the page's form."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from mgnp_jax.files import read_object, replacing, write_whole
from mgnp_jax.types import MgnpError, plain_json

TEXT_FILE, ARRAY_FILE = "evidence.json", "evidence.npz"
"""Strings and small lists; arrays."""

ARRAY = "array"
"""Key that stands in the first for an array of the second."""

MOST_BYTES = 2**30
"""No evidence is larger."""

DIGITS = 4
"""Significant digits on the page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Causal evidence for every node of a circuit, on N held-out prompts; NumPy arrays and lists.

    An effect is a change of a figure, mean over prompts: `score` in the metric's unit, `kl` in nats
    to the full model. Granularities and their shapes are those of the masks. Where whole answers
    are scored, what is a list of prompts is one of the rows that they are read in, each with what
    answers begin with; attention and what drives neurons are of rows, too.

    Attributes:
      task: by name; empty where the circuit does not say.
      model: by name.
      prompts_used: N, however many rows these are read in.
      scores: `score`, `kl` and `accuracy` of the `model`, the `circuit` and the model on
        `corrupted` prompts.
      removal: by granularity, `score` and `kl`: what changes if the node alone leaves the circuit,
        NaN for nodes that are not in it; and `exact`, False where it is to first order.
      addition: the same for what changes if the node joins the empty circuit, with what it needs
        in order to act; of all heads and blocks, and of kept neurons.
      positions: `attention_heads` [P, L, H, T] and `mlp_blocks` [P, L, T] float16: what the score
        changes by, to first order, if the node leaves the circuit at one token alone; NaN for
        nodes that are not kept and where a prompt has no token.
      examples: P prompts: `clean` and `corrupted` text, their tokens, answers, and the `top` five
        tokens with their probabilities of model, circuit, and model on the corrupted prompt.
      patterns: `heads` [layer, head], and their attention in the `clean` and `corrupted` run and
        inside the `circuit`, uint8 [P, heads, T, T]: 255 is 1, rows read from columns.
      attends: by kind of position, [L, H] share of attention that goes there from the last token
        of the clean prompt, mean over prompts that have such a position.
      writes: `attention_heads` and `mlp_hidden`: `direct`, what the node adds to the right minus
        wrong logits at the answer position of the clean run, the final norm's scale frozen; and
        the tokens that its mean output raises (`towards`) and lowers (`away`) most.
      drivers: [layer, neuron, [[prompt, position, activation], …]], strongest first.
      driver_prompts: text of all N prompts, to which `drivers` refer; the first P are `examples`.
      edges: [writer, reader, attribution] between kept nodes, strongest first.
      edge_prompts: how many of the prompts, the first, attributions are means over.
      lens: of `model` and `circuit`, after the embedding and each layer [L + 1], the final norm
        applied: `score`, `answer_probability` of all right answers together, and `answer_rank` of
        the best of them, 1 for the most likely token.
      votes: by granularity, the share of circuits that keep the node; empty if there is one alone.
      seconds: that it took.
      peak_mb: most memory, MiB: of an accelerator, else of the process.
    """

    task: str
    model: str
    prompts_used: int
    scores: dict[str, dict[str, float]]
    removal: dict[str, dict[str, np.ndarray]]
    addition: dict[str, dict[str, np.ndarray]]
    positions: dict[str, np.ndarray]
    examples: list[dict[str, Any]]
    patterns: dict[str, Any]
    attends: dict[str, np.ndarray]
    writes: dict[str, dict[str, Any]]
    drivers: list[list[Any]]
    driver_prompts: list[str]
    edges: list[list[Any]]
    edge_prompts: int
    lens: dict[str, dict[str, np.ndarray]]
    votes: dict[str, np.ndarray]
    seconds: float
    peak_mb: float

    def save(self, folder: str | Path) -> None:
        """Writes `evidence.json` and `evidence.npz`; each whole or not at all.

        Args:
          folder: made if missing; files of these names are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        tree = _without_arrays(_fields(self), "", arrays)
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]
        with replacing(folder / ARRAY_FILE) as part:
            part.write_bytes(stream.getvalue())
        write_whole(folder / TEXT_FILE, json.dumps(plain_json(tree), ensure_ascii=True) + "\n")

    def as_page(self) -> dict[str, Any]:
        """The same as JSON can hold it: arrays as nested lists of four significant digits.

        Returns:
          A dict by field; numbers that are not finite are None, arrays of bytes are
          `{"data": base64, "shape": […]}`.
        """
        return {name: _page(value) for name, value in _fields(self).items()}


def load_evidence(folder: str | Path) -> Evidence:
    """Reads what `Evidence.save` wrote; no model is needed, and nothing in it is trusted.

    Args:
      folder: its folder, or a run's folder that has it as `evidence/`.

    Raises:
      MgnpError: if there is none, or it is not what `save` writes.
    """
    folder = Path(folder)
    within = folder / "evidence"
    # What somebody put into the folder itself goes before what a page's making left within.
    if not (folder / TEXT_FILE).is_file() and (within / TEXT_FILE).is_file():
        folder = within
    mend = "make it again with mg.explain(model, circuit, data.test).save(folder)"
    if not (folder / TEXT_FILE).is_file() or not (folder / ARRAY_FILE).is_file():
        raise MgnpError(f"{folder} holds no {TEXT_FILE} and {ARRAY_FILE}; {mend}")
    tree = read_object(folder / TEXT_FILE, mend, most=MOST_BYTES)
    wanted = {field.name for field in dataclasses.fields(Evidence)}
    if set(tree) != wanted:
        raise MgnpError(
            f"{folder / TEXT_FILE} has the fields {sorted(tree)}, wanted {sorted(wanted)}; {mend}"
        )
    try:
        with np.load(folder / ARRAY_FILE, allow_pickle=False) as arrays:
            size = sum(member.file_size for member in arrays.zip.infolist())
            if size > MOST_BYTES:
                raise ValueError(f"its arrays come to {size:,} bytes")
            return Evidence(**_with_arrays(tree, arrays))
    # A damaged file is reported by many exception types.
    except Exception as error:
        raise MgnpError(
            f"{folder / ARRAY_FILE} cannot be read ({type(error).__name__}: {str(error)[:300]}); "
            f"{mend}"
        ) from None


def _fields(evidence: Evidence) -> dict[str, Any]:
    return {f.name: getattr(evidence, f.name) for f in dataclasses.fields(evidence)}


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """A tree in which names stand for arrays, which are put aside under them."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {ARRAY: path}
    if isinstance(value, dict):
        inside = f"{path}/" if path else ""
        return {k: _without_arrays(each, f"{inside}{k}", arrays) for k, each in value.items()}
    return value


def _with_arrays(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return arrays[value[ARRAY]]
        return {key: _with_arrays(each, arrays) for key, each in value.items()}
    return value


def _page(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _page(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_page(each) for each in value]
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8:
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
            return {"data": data, "shape": list(value.shape)}
        return _page(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value
