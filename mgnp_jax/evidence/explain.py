"""Gathers the evidence for every node of a circuit."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mgnp_jax.evidence.attention import patterns_of, strongest_heads
from mgnp_jax.evidence.chunks import FIGURES, Load, Progress, load_of
from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.evidence.edges import strongest_edges
from mgnp_jax.evidence.effects import Effects, Split, effects_of
from mgnp_jax.evidence.evidence import Evidence
from mgnp_jax.evidence.examples import prompt_texts, shown_examples, text_of
from mgnp_jax.evidence.of_edges import EdgeCircuit
from mgnp_jax.evidence.of_nodes import NodeCircuit
from mgnp_jax.evidence.positions import effects_by_position, nowhere
from mgnp_jax.evidence.reading import Neurons, drivers_of, read_whole
from mgnp_jax.evidence.removal import strongest
from mgnp_jax.evidence.writes import towards_and_away
from mgnp_jax.masks.circuit import Circuit
from mgnp_jax.masks.granularities import ATTENTION_HEADS, GRANULARITIES, MLP_HIDDEN
from mgnp_jax.masks.levels import NODE, check_masks, level_of
from mgnp_jax.metrics.evaluate import checked
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.hub import Model
from mgnp_jax.passes.cached_runs import plain_runs
from mgnp_jax.passes.caching import cache_logits
from mgnp_jax.passes.circuit_forward import circuit_logits
from mgnp_jax.passes.edge_forward import check_edges
from mgnp_jax.passes.precision import exact
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.types import AblationValues, Batch, Masks, MgnpError, Record


class Subject(NamedTuple):
    """What is to be explained.

    Attributes:
      model: the model.
      masks: bool, of nodes or edges.
      constants: that pruned nodes are given; None for the corrupted run's values.
      batch: N prompts.
      config: how much is gathered.
    """

    model: Model
    masks: Masks
    constants: AblationValues | None
    batch: Batch
    config: ExplainConfig

    @property
    def examples(self) -> Batch:
        """P prompts that are shown."""
        return self.batch.take(slice(self.config.examples))


def explain(
    model: Model,
    circuit: Circuit | Masks,
    batch: Batch,
    config: ExplainConfig | None = None,
    *,
    others: Sequence[Circuit] = (),
    on_record: Callable[[Record], None] = lambda record: None,
) -> Evidence:
    """Says why each node is in a circuit.

    Of a circuit of edges, a node that leaves takes all its edges along, and one that joins the
    empty circuit reads the input and is read by the logits alone; effects of neurons and by
    position, and attention inside the circuit, are not defined for it and left out (NaN, or no
    entry).

    Args:
      model: the model the circuit is of.
      circuit: a circuit of nodes or edges; or binary masks of one.
      batch: held-out prompts, of which the first so many are used.
      config: how much is gathered.
      others: circuits of other seeds, whose votes are counted with this one's.
      on_record: told how far it is, as of `discover`.

    Returns:
      The evidence, on the first `config.prompts` prompts.

    Raises:
      MgnpError: as `evaluate` does; for a model with a norm after attention, in which no head has
        a part of its own in what attention writes; and for votes of circuits of another level.
    """
    started, config = time.perf_counter(), config or ExplainConfig()
    check_edges(model.config, "what heads do alone is not defined; measure it with evaluate")
    batch = batch.take(slice(config.prompts))
    found, constants = checked(model, {"circuit": circuit}, batch, stacklevel=2)
    masks = level_of(found["circuit"]).consistent(found["circuit"])
    subject = Subject(model, masks, constants, batch, config)
    metadata = circuit.metadata if isinstance(circuit, Circuit) else {}
    return Evidence(
        task=str(metadata.get("task") or ""),
        model=model.name,
        prompts_used=len(batch),
        **_gathered(subject, on_record),
        driver_prompts=prompt_texts(model.tokenizer, batch),
        votes=_votes(model.config, masks, others),
        seconds=time.perf_counter() - started,
        # Of the process, whatever else it has done; kibibytes, as Linux counts.
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _gathered(subject: Subject, on_record: Callable[[Record], None]) -> dict[str, Any]:
    """Everything that takes passes, by field."""
    model, masks, constants, batch, config = subject
    examples, spans = subject.examples, spans_of(batch, share_prefix=constants is None)
    load = load_of(model, batch, spans, config.memory_gib)
    on_record({"passing": True, "text": f"Memory: {load}"})
    # More are told when it is known how many nodes there are to try.
    progress = Progress(0, on_record)
    found = (NodeCircuit if level_of(masks) is NODE else EdgeCircuit)(model, masks)
    effects = effects_of(found, Split(batch, load, constants), config.neurons, progress)
    sizes = effects.removal[ATTENTION_HEADS][FIGURES[0]]
    heads = strongest_heads(sizes, config.heads, *examples.clean.shape)
    if isinstance(found, NodeCircuit):
        positions = effects_by_position(model, masks, constants, examples)
    else:
        positions = nowhere(model.config, examples)
    patterns = patterns_of(model, masks, constants, examples, heads)
    return {
        "scores": effects.scores,
        "removal": effects.removal,
        "addition": effects.addition,
        "positions": positions,
        "examples": _examples(subject),
        "patterns": {"heads": heads.tolist(), **patterns},
        **_read(subject, found, effects, load, progress),
        "edges": strongest_edges(model, masks, batch, config.edges, load, on_record),
        "lens": effects.lens,
    }


def _read(
    subject: Subject,
    circuit: NodeCircuit | EdgeCircuit,
    effects: Effects,
    load: Load,
    progress: Progress,
) -> dict[str, Any]:
    """Where heads look, what nodes write, what drives neurons: `attends`, `writes`, `drivers`."""
    model, _, _, batch, config = subject
    c, text = model.config, text_of(model.tokenizer)
    kept, direct = circuit.nodes[MLP_HIDDEN], effects.direct
    # Edges tell neurons of an MLP not apart; those that write most to the answer are shown.
    sizes = (
        effects.removal[MLP_HIDDEN][FIGURES[0]]
        if isinstance(circuit, NodeCircuit)
        else direct["hidden"]
    )
    sizes = {MLP_HIDDEN: np.where(kept, sizes, np.nan)}
    chosen = strongest(sizes, (MLP_HIDDEN,), config.neurons)[MLP_HIDDEN]
    neurons = Neurons(*np.nonzero(chosen))
    whole = read_whole(model, batch, neurons, load, progress)
    normed = direct["normed"].reshape(-1, c.width)
    by_head = towards_and_away(c, model.params, normed, config.tokens, text)
    by_neuron = towards_and_away(c, model.params, whole.normed, config.tokens, text)
    places = [list(divmod(i, c.heads)) for i in range(len(normed))]
    neuron_places = np.stack(neurons, -1).tolist()

    def written(values: np.ndarray, places: list[list[int]], tokens: Any) -> dict[str, Any]:
        lists = ([[*p, t] for p, t in zip(places, of, strict=True)] for of in tokens)
        return {"direct": values, **dict(zip(("towards", "away"), lists, strict=True))}

    return {
        "attends": whole.attends,
        "writes": {
            ATTENTION_HEADS: written(direct["heads"], places, by_head),
            MLP_HIDDEN: written(np.where(kept, direct["hidden"], np.nan), neuron_places, by_neuron),
        },
        "drivers": drivers_of(neurons, whole.activations, config.drivers),
    }


def _examples(subject: Subject) -> list[dict[str, Any]]:
    """Prompts with what is answered."""
    model, masks, constants, _, _ = subject
    c, params, examples = model.config, model.params, subject.examples
    runs = plain_runs(c, params, examples, ablation_values=constants)
    swapped: Batch = examples.replace(clean=examples.corrupted)  # type: ignore[attr-defined]
    gates = {name: np.asarray(mask, np.float32) for name, mask in masks.items()}
    logits = {
        "model": runs.base_logits,
        "circuit": _circuit_logits(c, params, gates, runs),
        "corrupted": cache_logits(c, params, swapped, len(examples)),
    }
    return shown_examples(model.tokenizer, examples, jax.device_get(logits))


_circuit_logits = jax.jit(exact(circuit_logits), static_argnums=0)


def _votes(
    model_config: ModelConfig, masks: Masks, others: Sequence[Circuit]
) -> dict[str, np.ndarray]:
    """The share of circuits that keep each node."""
    if not others:
        return {}
    level, found = level_of(masks), [masks]
    for i, other in enumerate(others):
        check_masks(model_config, other.masks, f"the masks of others[{i}]")
        if level_of(other.masks) is not level:
            raise MgnpError(
                f"others[{i}] is a circuit of {level_of(other.masks).name}s, the one that is "
                f"explained of {level.name}s; count votes of one level"
            )
        found.append(other.masks)
    nodes = [level.nodes(model_config, each) for each in found]
    return {
        name: np.mean([np.asarray(each[name], np.float32) for each in nodes], axis=0)
        for name in GRANULARITIES
    }
