"""Numbers that are none: which prompts they are of."""

from __future__ import annotations

import numpy as np

from mgnp_jax.methods.training.work import Work
from mgnp_jax.passes.cached_runs import plain_runs

SHOWN = 3
"""Prompts that are shown as text."""


def which_prompts(work: Work, rows: np.ndarray) -> str:
    """The prompts of a batch; if the model itself gives no numbers for some, those alone.

    Args:
      work: what is worked with.
      rows: [B] of its training prompts.
    """
    batch = work.train.batch.take(rows)
    base = plain_runs(work.model.config, work.params, batch).base_logits
    own = ~np.isfinite(np.asarray(base, np.float32)).all(-1)
    whose = "rows of the training prompts"
    if own.any():
        rows, whose = rows[own], "training prompts on which the whole model gives none, rows"
    told = f"{whose} {', '.join(map(str, work.read[rows].tolist()))}"
    if work.model.tokenizer is None:
        return told
    shown = work.train.batch.take(rows[:SHOWN])
    texts = (
        work.model.tokenizer.decode(tokens[mask.astype(bool)].tolist())
        for tokens, mask in zip(np.asarray(shown.clean), np.asarray(shown.attention_mask))
    )
    more = ", …" if len(rows) > SHOWN else ""
    return f"{told} ({', '.join(repr(text) for text in texts)}{more})"
