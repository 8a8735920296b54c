"""Gathers the evidence for every node of a circuit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgnp_jax.evidence.attention import patterns_of, strongest_heads
from mgnp_jax.evidence.chunks import FIGURES, Progress, Split, load_of
from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.evidence.edges import strongest_edges
from mgnp_jax.evidence.effects import Effects, effects_of
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
from mgnp_jax.passes.memory import peak_mb
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.types import Batch, Masks, MgnpError, Record


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
      MgnpError: as `evaluate` does; and for votes of circuits of another level.
    """
    started, config = time.perf_counter(), config or ExplainConfig()
    batch = batch.of_pairs(slice(config.prompts))
    found, constants = checked(model, {"circuit": circuit}, batch, stacklevel=2)
    masks = level_of(found["circuit"]).consistent(found["circuit"])
    spans = spans_of(batch, share_prefix=constants is None)
    split = Split(batch, load_of(model, batch, spans, config.memory_gib), constants)
    on_record({"passing": True, "text": f"Memory: {split.load}"})
    of_level = (NodeCircuit if level_of(masks) is NODE else EdgeCircuit)(model, masks)
    metadata = circuit.metadata if isinstance(circuit, Circuit) else {}
    return Evidence(
        task=str(metadata.get("task") or ""),
        model=model.name,
        prompts_used=batch.pairs,
        **_gathered(of_level, masks, split, config, on_record),
        driver_prompts=prompt_texts(model.tokenizer, batch),
        votes=_votes(model.config, masks, others),
        seconds=time.perf_counter() - started,
        peak_mb=peak_mb(),
    )


def _gathered(
    circuit: NodeCircuit | EdgeCircuit,
    masks: Masks,
    split: Split,
    config: ExplainConfig,
    on_record: Callable[[Record], None],
) -> dict[str, Any]:
    """Everything that takes passes, by field."""
    model, examples = circuit.model, split.examples(config.examples)
    # More are told when it is known how many nodes there are to try.
    progress = Progress(0, on_record)
    effects = effects_of(circuit, split, config.neurons, len(examples.batch), progress)
    sizes = effects.removal[ATTENTION_HEADS][FIGURES[0]]
    heads = strongest_heads(sizes, config.heads, *np.shape(examples.batch.clean))
    if isinstance(circuit, NodeCircuit):
        positions = effects_by_position(model, masks, examples)
    else:
        positions = nowhere(model.config, examples.batch)
    some = split.batch.of_pairs(slice(config.edge_prompts))
    found = strongest_edges(model, masks, some, config.edges, split.load, on_record)
    return {
        "scores": effects.scores,
        "removal": effects.removal,
        "addition": effects.addition,
        "positions": positions,
        "examples": shown_examples(model.tokenizer, examples.batch, effects.logits),
        "patterns": {"heads": heads.tolist(), **patterns_of(model, masks, examples, heads)},
        **_read(circuit, effects, split, config, progress),
        "edges": found,
        "edge_prompts": some.pairs,
        "lens": effects.lens,
    }


def _read(
    circuit: NodeCircuit | EdgeCircuit,
    effects: Effects,
    split: Split,
    config: ExplainConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Where heads look, what nodes write, what drives neurons: `attends`, `writes`, `drivers`."""
    model = circuit.model
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
    whole = read_whole(model, split.batch, neurons, split.load, progress)
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
