"""What the benchmark measures: the machine's matrix rate, our step, its memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import mgnp_jax as mg
from experiments.benchmark.published import PADDED, megabytes
from experiments.benchmark.workload import random_prompts
from mgnp_jax.methods.node_pruning.state import first_trained
from mgnp_jax.methods.node_pruning.step import train_step
from mgnp_jax.methods.training.batch_order import batch_order
from mgnp_jax.passes.compaction import Compaction
from mgnp_jax.passes.keeping import keep_what_fits
from mgnp_jax.passes.precision import in_precision
from mgnp_jax.passes.sharding import batch_sharding

LEAN_PARTS = 8
"""Parts that a batch runs in where memory is measured."""


def measure_matrix_rate(model_config: mg.ModelConfig, tokens: int) -> Callable[[], float]:
    """A function that times products of the model's shapes, in multiply-adds a second.

    Args:
      model_config: the model's shape.
      tokens: rows of the left factor.
    """
    rng = np.random.default_rng(0)
    shapes = (tokens, model_config.width), (model_config.width, model_config.mlp_width)
    x, up = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    down = up.T + 0

    @jax.jit
    def products(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return (x @ up) @ down

    products(x, up, down).block_until_ready()
    work = 2 * tokens * model_config.width * model_config.mlp_width
    # Long enough to be timed; products of a tiny shape cost little but the calls.
    times = min(200, max(1, int(2e10 / work)))

    def rate() -> float:
        started = time.perf_counter()
        for _ in range(times):
            out = products(x, up, down)
        out.block_until_ready()
        return times * work / (time.perf_counter() - started)

    return rate


def ours(
    discover: mg.DiscoverConfig,
    model: mg.Model,
    batch: mg.Batch,
    compaction: Compaction | None = None,
) -> tuple[Callable[[], float], float, float]:
    """Our step, compiled: a function that times one, compile seconds, XLA's megabytes.

    Args:
      discover: how it is run.
      model: the model.
      batch: training prompts.
      compaction: what is left of the model; None for all of it.
    """
    execution = discover.execution
    model_config, params = in_precision(model.config, model.params, execution.precision)
    (kept,) = keep_what_fits(model_config, params, [batch], discover.batch_size, execution)
    kept = kept if compaction is None else kept.compacted(compaction)
    key = jax.random.key(0)
    tokens = kept.spans.lengths - kept.spans.starts
    order = batch_order(key, tokens, discover.batch_size, discover.steps)
    sharding = batch_sharding(1, execution.accumulate)
    sizes = sharding.sizes(kept.spans, order)
    state = first_trained(discover, model_config, key)
    fixed = (discover, model_config, key, params)
    started = time.perf_counter()
    runs = sharding.rows(kept, order[0], sizes)
    left = None if compaction is None else compaction.open
    compiled = train_step.lower(*fixed, state, runs, compaction, left).compile()
    compile_s = time.perf_counter() - started
    steps = itertools.cycle(range(discover.steps))

    def step() -> float:
        nonlocal state
        started = time.perf_counter()
        runs = sharding.rows(kept, order[next(steps)], sizes)
        state, out = compiled(key, params, state, runs, compaction, left)
        jax.block_until_ready((state, out))
        return time.perf_counter() - started

    return step, compile_s, megabytes(compiled)


def memory(discover: mg.DiscoverConfig, model: mg.Model) -> dict[str, float]:
    """XLA's megabytes of a step on prompts of `PADDED` tokens, weights included.

    Args:
      discover: batch size.
      model: the model.

    Returns:
      Of the leanest mode in both precisions, and of the leanest on values kept of the
      corrupted run.
    """
    parts = math.gcd(LEAN_PARTS, discover.batch_size)
    lean = dataclasses.replace(discover.execution, cache="off", remat=True, accumulate=parts)
    modes = {
        "lean_float32": dataclasses.replace(lean, dtype="float32"),
        "lean_bfloat16": dataclasses.replace(lean, dtype="bfloat16"),
        "cached_float32": dataclasses.replace(lean, dtype="float32", cache="batch"),
    }
    long = random_prompts(discover.batch_size, PADDED)
    return {
        name: ours(dataclasses.replace(discover, execution=mode), model, long)[2]
        for name, mode in modes.items()
    }
