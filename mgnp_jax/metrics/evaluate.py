"""How faithful a binary circuit is on a split, beside the full model on the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from mgnp_jax.masks.checks import PROJECTED
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import as_bool
from mgnp_jax.masks.levels import NODE, check_masks, level_of
from mgnp_jax.metrics.per_prompt import PerPrompt, collect, per_prompt, summarise
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.models.mesh import on_host
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.caching import chunk_rows, prompts_at_once
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.types import AblationValues, Batch, Masks, MgnpError, Record, checksum


def evaluate(
    model: Model,
    circuit: Circuit | Masks,
    batch: Batch,
    *,
    batch_size: int | None = None,
    on_progress: Callable[[int], None] = lambda prompts: None,
) -> Record:
    """Measures a binary circuit on a split.

    Args:
      model: the model the circuit is of.
      circuit: a circuit, or binary masks of nodes or edges; of bare masks, what is pruned is given
        the corrupted run's values.
      batch: N held-out prompts.
      batch_size: prompts a chunk; by default as many as fit in a quarter of a GiB, at most 64.
        Changes memory and time, not the figures.
      on_progress: called with the number of prompts done since the last call.

    Returns:
      What `summarise` returns, over all prompts; the same over the prompts that the full
      model answers rightly under `answered`.

    Raises:
      MgnpError: if the circuit is of another model, masks do not fit it or are not binary or the
        hierarchy leaves nothing of what is open, a prompt is longer than the model's context, or
        logits are not numbers.

    Warns:
      UserWarning: if gates are open that change nothing, see `check_acting`.
    """
    found = evaluate_all(
        model, {"circuit": circuit}, batch, batch_size=batch_size, on_progress=on_progress
    )
    return found["circuit"]


def evaluate_all(
    model: Model,
    circuits: Mapping[str, Circuit | Masks],
    batch: Batch,
    *,
    batch_size: int | None = None,
    on_progress: Callable[[int], None] = lambda prompts: None,
) -> dict[str, Record]:
    """`evaluate` for several circuits; the plain passes, which they share, run once.

    Args:
      model: the model the circuits are of.
      circuits: circuits, or binary masks of nodes or edges, by name. What is pruned in all is
        given what the circuits among them were found with.
      batch: N held-out prompts.
      batch_size: prompts a chunk; by default as many as fit in a quarter of a GiB, at most 64.
        Changes memory and time, not the figures.
      on_progress: called with the number of prompts done since the last call.

    Returns:
      What `evaluate` returns, for each.

    Raises:
      MgnpError: as `evaluate` does.
    """
    masks, constants = checked(model, circuits, batch, stacklevel=3)
    found: dict[str, list[tuple[PerPrompt, int]]] = {name: [] for name in masks}
    spans = spans_of(batch, share_prefix=constants is None)
    chunks = list(chunk_rows(len(batch), batch_size or prompts_at_once(model.config, spans)))
    sizes = spans.sizes(rows for rows, _ in chunks)
    for chosen, real in chunks:
        rows = batch.take(chosen)
        runs = plain_runs(model.config, model.params, rows, sizes, ablation_values=constants)
        for name, each in masks.items():
            result = on_host(per_prompt(model.config, model.params, each, runs))
            check_logits(model, result["kl"], chosen)
            found[name].append((result, real))
        on_progress(real)
    joined = {name: collect(parts, batch) for name, parts in found.items()}
    return {
        name: summarise(rows) | {"answered": summarise(rows, rows["correct"][0])}
        for name, rows in joined.items()
    }


def checked(
    model: Model, circuits: Mapping[str, Circuit | Masks], batch: Batch, stacklevel: int
) -> tuple[dict[str, Masks], AblationValues | None]:
    """What is needed to run circuits on prompts, which must be of one another.

    Args:
      model: the model the circuits are of.
      circuits: circuits, or binary masks of nodes or edges, by name.
      batch: prompts.
      stacklevel: of warnings; 1 is the caller's line.

    Returns:
      Bool masks by name; the constants that pruned nodes are given.

    Raises:
      MgnpError: as `evaluate` does, logits aside.
    """
    constants = _constants_of(circuits)
    masks: dict[str, Masks] = {}
    for name, circuit in circuits.items():
        masks[name] = _checked(model.config, name, circuit, stacklevel + 2)
    if constants is not None and any(level_of(each) is not NODE for each in masks.values()):
        raise MgnpError(
            f"among {', '.join(circuits)} are circuits of edges and such that were found with "
            "constants for pruned nodes (ablation); a pruned edge can be given the corrupted run's "
            "value alone: measure them one by one"
        )
    check_prompts(model.config, batch)
    _check_prefixes(circuits, batch)
    return masks, constants


def _checked(
    model_config: ModelConfig, name: str, circuit: Circuit | Masks, stacklevel: int
) -> Masks:
    """The binary masks of a circuit that is of this model."""
    masks = circuit.masks if isinstance(circuit, Circuit) else circuit
    check_masks(model_config, masks, f"the masks of {name!r}")
    if isinstance(circuit, Circuit):
        wanted, own = str(circuit.metadata.get("config_hash", "")), model_config.hash()
        # One that was hashed in another way says nothing.
        if wanted.partition(":")[0] == own.partition(":")[0] and wanted != own:
            raise MgnpError(
                f"{name!r} was found on a model whose config has the hash {wanted}, this one's is "
                f"{own}: another family, or another constant of the same shape. "
                f"Load the model it was found on ({circuit.metadata.get('model', 'unknown')})"
            )
        beyond = set(circuit.ablation_values or {}) & set(PROJECTED)
        if beyond and not model_config.norm_after:
            raise MgnpError(
                f"{name!r} gives constants to {', '.join(sorted(beyond))}, which this model lacks; "
                f"load the model it was found on ({circuit.metadata.get('model', 'unknown')})"
            )
    masks = as_bool(masks)
    level_of(masks).check_acting(masks, f"the masks of {name!r}", stacklevel)
    return masks


def check_logits(model: Model, kl: np.ndarray, chosen: np.ndarray) -> None:
    """Refuses logits that are not numbers, which would make no figure one.

    Args:
      model: whose they are.
      kl: [B] of two runs; none if any of their logits is none.
      chosen: [B] rows of the split.

    Raises:
      MgnpError: naming the first row, and the weights that are not numbers.
    """
    wrong = ~np.isfinite(kl)
    if not wrong.any():
        return
    row = int(chosen[wrong.argmax()])
    weights = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(model.params)
        if not np.isfinite(np.asarray(leaf, np.float32)).all()
    ]
    told = (
        f"of its weights {', '.join(weights[:3])} are not, either" if weights else "its weights are"
    )
    raise MgnpError(
        f"the logits of {model.name} are not numbers (NaN or infinite) on row {row} of the split, "
        f"counted from 0; {told}: fetch the checkpoint again, or look at what changed the weights"
    )


def _check_prefixes(circuits: Mapping[str, Circuit | Masks], batch: Batch) -> None:
    """Refuses prompts that begin with something else than those that a circuit was found on."""
    for name, circuit in circuits.items():
        origin = (isinstance(circuit, Circuit) and circuit.metadata.get("origin")) or {}
        found = origin.get("prefix")
        if None not in (found, batch.prefix) and found != batch.prefix:
            raise MgnpError(
                f"{name!r} was found on prompts that begin with {found!r}, these begin with "
                f"{batch.prefix!r}; pass prefix={found!r} to load_task or from_pairs, or measure "
                "it nonetheless on dataclasses.replace(batch, prefix=None)"
            )


def _constants_of(circuits: Mapping[str, Circuit | Masks]) -> AblationValues | None:
    found = [c.ablation_values for c in circuits.values() if isinstance(c, Circuit)]
    if any(checksum(one or {}) != checksum(found[0] or {}) for one in found):
        raise MgnpError(
            f"the circuits {', '.join(circuits)} were found with different values for pruned "
            "nodes (ablation); measure them one by one"
        )
    return found[0] if found else None


def check_prompts(model_config: ModelConfig, batch: Batch) -> None:
    """Refuses prompts and answers that the model cannot take.

    Args:
      model_config: the model's shape.
      batch: prompts.

    Raises:
      MgnpError: if there are none, they are too long, or have ids beyond the vocabulary.
    """
    if not len(batch):
        raise MgnpError("the split has no prompts; wanted at least one")
    if batch.clean.shape[1] > model_config.context:
        row = int(np.asarray(batch.attention_mask).sum(-1).argmax())
        raise MgnpError(
            f"the longest prompt (number {row}) has {batch.clean.shape[1]} tokens, the "
            f"model's context is {model_config.context}; shorten the prompts {_BY_LINE}"
        )
    targets = batch.targets
    answers = {"answers": targets.answers.tokens}
    answers |= {f"answers of {name!r}": s.answers.tokens for name, s in targets.scores.items()}
    answers |= {f"answers of {name!r}": tokens for name, tokens in targets.kl_over.items()}
    prompts = {"clean prompt": batch.clean, "corrupted prompt": batch.corrupted}
    for what, tokens in (prompts | answers).items():
        beyond = np.asarray(tokens).max(-1)
        row = int(beyond.argmax())
        if beyond[row] >= model_config.vocab_size:
            raise MgnpError(
                f"the {what} number {row} of a split has token id {beyond[row]}, the model's "
                f"vocabulary ends at {model_config.vocab_size - 1}: the tokenizer is another "
                f"model's, or has tokens that were added without resizing this one {_BY_LINE}"
            )


_BY_LINE = "(load_task and from_pairs name the line if they are given limits=model.config)"
