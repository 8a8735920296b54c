"""What a binary circuit is worth on the validation prompts."""

from __future__ import annotations

import jax

from mgnp_jax.methods.node_pruning import losses
from mgnp_jax.methods.node_pruning.config import Settings
from mgnp_jax.methods.node_pruning.nested import kept_price
from mgnp_jax.metrics.per_prompt import measure
from mgnp_jax.metrics.sizes import prunable_share
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.types import Masks, Record


def measured(split: SplitRuns, masks: Masks, size: int) -> Record:
    """Metrics of a binary circuit, and the share of the prunable parameters that it keeps.

    Args:
      split: the validation prompts.
      masks: bool arrays by granularity.
      size: prompts a chunk.
    """
    share = prunable_share(split.model_config, jax.device_get(masks))
    return measure(split, masks, size) | {"prunable_kept": share}


def binary_objective(
    config: Settings, model_config: ModelConfig, masks: Masks, measured: Record, price: float
) -> float:
    """Equation 7 of a binary circuit on the validation split, and how far its mean score is off.

    The circuit with the least is kept. Softened answers have no part in it: a circuit is chosen
    by the figures it is reported with.

    Args:
      config: loss weights.
      model_config: the model's shape.
      masks: bool arrays by granularity.
      measured: its metrics.
      price: scale of all prices.
    """
    terms = {"kl": measured[config.kl_over or "kl"], "score_gap": measured["score_gap"]}
    terms["penalty"] = losses.penalty(
        {name: mask.mean() for name, mask in masks.items()},
        {name: mask.size for name, mask in masks.items()},
        config.penalties.of_model(model_config),
    )
    off = abs(measured["score"] - measured["base_score"]) / max(abs(measured["base_score"]), 1e-6)
    return float(losses.total(config, terms, price)) + config.mean_score_weight * off


def validated(
    config: Settings,
    model_config: ModelConfig,
    step: int,
    masks: Masks,
    measured: Record,
    price: float,
) -> Record:
    """What is recorded of a validation.

    Args:
      config: loss weights.
      model_config: the model's shape.
      step: after how many steps.
      masks: bool arrays by granularity.
      measured: the circuit's metrics.
      price: whose circuit it is.
    """
    counted: Masks = jax.device_get(masks)
    return {
        "step": step,
        **measured,
        "objective": binary_objective(config, model_config, counted, measured, price),
        "kept": {name: float(mask.mean()) for name, mask in counted.items()},
        "price": price,
    }


ASKED = {"keep": "share of the prunable parameters", "max_kl": "KL in nats"}
"""What can be asked for beside a number of heads, as a reader calls it."""


def why_this_one(config: Settings, record: Record) -> str:
    """Why this circuit and no other of its training, in a sentence.

    Args:
      config: what was asked for.
      record: the circuit's validation.
    """
    this = f"Keeping the circuit of step {record['step']}"
    if config.nested:
        return _nested(config, record)
    if config.choose == "last":
        return f"{this}, the last"
    return (
        f"{this}: of the circuits that were validated it has the least loss plus price, with its "
        "mean score's distance from the model's"
    )


def _nested(config: Settings, record: Record) -> str:
    others = "circuit.at(keep=…), at(heads=…) or at(edges=…) is that of any other size"
    if "target" in record:
        return f"{_what_was_reached(record['target'])}; {others}"
    early = "Stopped before it met what was asked. " if config.asked else ""
    return (
        f"{early}Keeping the circuit of price {kept_price(config):g} by the ranking of step "
        f"{record['step']}; {others}"
    )


def _what_was_reached(target: Record) -> str:
    reached = target["reached"]
    few = f"at most {target['heads']} heads" if "heads" in target else ""
    sizes = [(n, target[n]) for n in ASKED if n in target]
    asked = [f"a {ASKED[name]} of {wanted:g}" for name, wanted in sizes] + [few] * bool(few)
    text = f"Asked for {' with '.join(asked)}"
    if "refused" in target:
        kept = "that share alone" if "keep" in target else "a price"
        return f"{text}, which is not met: {target['refused']}; this is the circuit of {kept}"
    if not sizes:
        return f"{text}, kept {reached}"
    ((name, wanted),) = sizes
    text = f"{text}, reached {reached:.4g}"
    if name == "max_kl":
        text = f"{text} on validation prompts"
        return f"{text}, all that is ranked" if reached > wanted else text
    if reached > wanted:
        return f"{text}: no circuit of the ranking is smaller"
    if 0.9 * wanted <= reached:
        return text
    if few:
        return f"{text}, no nearer with as few heads"
    return (
        f"{text}, no nearer: next in the ranking is a head with its queries and keys, or what is "
        "not trained (--granularities)"
    )
