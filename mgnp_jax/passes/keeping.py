"""Keeping the plain passes of the prompts that a search reads, where there is room for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mgnp_jax.cachedir import cache_root
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.budget import Budget, budget_of
from mgnp_jax.passes.caching import (
    OnPrompts,
    cache_bytes,
    cache_logits,
    cache_runs,
    chunk_rows,
)
from mgnp_jax.passes.memory import give_back
from mgnp_jax.passes.settings import Execution
from mgnp_jax.passes.spans import Sizes, largest, spans_of
from mgnp_jax.passes.split_runs import SplitRuns
from mgnp_jax.passes.storage import Place, Room, gib
from mgnp_jax.types import AblationValues, Batch, MgnpError, Params, Record


def shares_prefix(execution: Execution, ablation: str) -> bool:
    """Whether tokens before a pair's first difference are left out of the masked pass.

    Args:
      execution: asked for.
      ablation: with constants, a pruned node differs from the clean run from the first token on.
    """
    return execution.share_prefix and not execution.lockstep and ablation == "interchange"


def keep_what_fits(
    model_config: ModelConfig,
    params: Params,
    splits: list[Batch],
    batch_size: int,
    execution: Execution,
    ablation_values: AblationValues | None = None,
    *,
    more_bytes: Callable[[Sizes], int] = lambda sizes: 0,
    beside_bytes: int = 0,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[SplitRuns]:
    """Computes the plain passes of splits once, and puts them where the budget has room.

    Args:
      model_config: the model's shape.
      params: its weights.
      splits: in order of importance: the first have the fastest place.
      batch_size: prompts a step.
      execution: cache mode and memory budget.
      ablation_values: constants for pruned nodes; None for the corrupted run's values.
      more_bytes: what a step takes beside a masked pass and its gradient, by its arrays' sizes.
      beside_bytes: of the model's own weights, where `params` are a copy.
      on_record: told what memory will be taken and how many prompts were run; see `OnRecord`.

    Raises:
      MgnpError: if there is room nowhere.
    """
    give_back()
    at_once = max(1, min(batch_size, len(splits[0])) // execution.accumulate)
    share = shares_prefix(execution, "interchange" if ablation_values is None else "constants")
    found = [
        SplitRuns(
            *(model_config, params, batch, spans_of(batch, share_prefix=share)),
            ablation_values=ablation_values,
        )
        for batch in splits
    ]
    common = _common_sizes(found, at_once)
    length = max(batch.clean.shape[1] for batch in splits)
    a_step, sizes = _of_a_step(found[0], common, at_once, batch_size // execution.accumulate)
    run = (execution, model_config, params, sizes, a_step, length)
    budget = budget_of(*run, more_bytes(sizes), beside_bytes)
    if execution.cache != "dataset":
        _say(on_record, f"Memory: {budget}; nothing is kept (--cache {execution.cache})")
        return [_with_logits(each, at_once) if execution.lockstep else each for each in found]
    needs = [cache_bytes(model_config, each.spans) for each in found]
    places, rest = _places(execution, budget.room, needs)
    _say(on_record, _told(budget, needs, places))
    done, total = 0, sum(map(len, splits))

    def on_prompts(count: int) -> None:
        nonlocal done
        done += count
        on_record({"passing": True, "prepared": done, "of": total})

    return [
        _kept(each, at_once, common, place, rest.part(need / sum(needs)), on_prompts)
        for each, place, need in zip(found, places, needs, strict=True)
    ]


def _common_sizes(splits: Sequence[SplitRuns], at_once: int) -> Sizes:
    """Array sizes of one compilation for all splits, wherever their prefixes are as long."""
    return largest(
        each.spans.sizes(rows for rows, _ in chunk_rows(len(each.batch), at_once))
        for each in splits
    )


def _of_a_step(split: SplitRuns, common: Sizes, at_once: int, prompts: int) -> tuple[int, Sizes]:
    """As many prompts as plain passes have, or more: several trainings may have one at once."""
    if prompts <= at_once:
        return at_once, common
    return prompts, largest([common, split.spans.sizes([np.arange(prompts) % len(split.batch)])])


def _say(on_record: Callable[[Record], None], text: str) -> None:
    on_record({"passing": True, "text": text})


def _with_logits(split: SplitRuns, at_once: int) -> SplitRuns:
    logits = cache_logits(split.model_config, split.params, split.batch, at_once)
    return dataclasses.replace(split, base_logits=logits)


def _kept(
    split: SplitRuns,
    at_once: int,
    sizes: Sizes,
    place: Place,
    room: Room,
    on_prompts: OnPrompts,
) -> SplitRuns:
    """The split with its plain passes, kept in a place."""
    runs = cache_runs(
        *(split.model_config, split.params, split.batch, at_once, split.spans),
        sizes=sizes._replace(prefix=int(split.spans.starts.max())),
        place=place,
        ablation_values=split.ablation_values,
        on_prompts=on_prompts,
    )
    return dataclasses.replace(split, kept=runs, room=room)


def _places(execution: Execution, room: Room, needs: list[int]) -> tuple[list[Place], Room]:
    """Where each split is kept, and what room is left."""
    if execution.cache_on != "auto":
        return [execution.cache_on] * len(needs), Room.all_in(execution.cache_on)
    places = []
    for need in needs:
        place = room.place_for(need)
        if place is None:
            raise MgnpError(
                f"values of the plain passes take {gib(need)}, but may take "
                f"{gib(max(room[:2]))} of memory and {gib(room.disk)} of the disk of "
                f"{cache_root()}. Free some of it, name a folder on another disk in "
                "MGNP_JAX_CACHE, allow more memory (memory_gib), or compute them anew for each "
                "batch (cache batch, which may round otherwise)"
            )
        places.append(place)
        room = room.without(place, need)
    return places, room


def _told(budget: Budget, needs: list[int], places: list[Place]) -> str:
    where = {
        "device": "on the device",
        "host": "in memory",
        "disk": "in files that go with the process",
    }
    kept = ", ".join(
        f"{gib(sum(n for n, at in zip(needs, places, strict=True) if at == place))} {text}"
        for place, text in where.items()
        if place in places
    )
    return f"Memory: {budget}; values of the plain passes are kept: {kept}"
