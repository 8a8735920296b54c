"""The programs that find first-order effects: plain passes, differences, a gradient at a point."""

from __future__ import annotations

import functools

import jax

from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.abstract_runs import abstract_params
from mgnp_jax.passes.attribution import Figure
from mgnp_jax.passes.budget import bytes_of
from mgnp_jax.passes.cached_runs import both_runs, plain_runs
from mgnp_jax.passes.effects import Kind, Path, chunk_prompts, mask_gradient
from mgnp_jax.passes.programs import Program, Programs
from mgnp_jax.passes.spans import spans_of
from mgnp_jax.types import Batch


def effect_programs(
    model_config: ModelConfig, batch: Batch, kind: Kind, figure: Figure, path: Path
) -> Programs:
    """What `effects` of these prompts runs again and again.

    Args:
      model_config: the model's shape.
      batch: N prompts.
      kind: of what.
      figure: that is affected.
      path: where gradients are taken.
    """
    params = abstract_params(model_config)
    size = chunk_prompts(model_config, kind, spans_of(batch))
    part, chunks = batch.take(slice(size)), -(-len(batch) // size)
    times = chunks * path.steps
    if path.along == "activations":
        plain = jax.jit(lambda weights: plain_runs(model_config, weights, part))
        runs = jax.eval_shape(plain, params)
        masks = jax.eval_shape(lambda: kind.full(model_config, 1.0))
        each = {
            "plain": Program(traced=plain.trace(params), times=chunks),
            "effects": Program(
                traced=mask_gradient.trace(model_config, figure, params, masks, runs), times=times
            ),
        }
        return Programs(params=params, prompts=size, each=each)
    both = jax.jit(lambda weights: both_runs(model_config, weights, part))
    runs, values = jax.eval_shape(both, params)
    # Weights lie there, whichever are read.
    differences = jax.jit(functools.partial(kind.differences, model_config), keep_unused=True)
    found = jax.eval_shape(differences, params, runs, values)
    effects = jax.jit(functools.partial(kind.effects, model_config, figure))
    embedding = runs.corrupted.embedding
    each = {
        "plain": Program(traced=both.trace(params), times=chunks),
        "differences": Program(traced=differences.trace(params, runs, values), times=chunks),
        "effects": Program(
            traced=effects.trace(params, embedding, runs, found),
            times=times,
            beside=bytes_of(values),
        ),
    }
    return Programs(params=params, prompts=size, each=each)
