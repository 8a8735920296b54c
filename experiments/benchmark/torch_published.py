"""The published algorithm's step in PyTorch, on the same device as ours; models of GPT-2's kind.

Eager, as published: the whole model, the corrupted prompts and the masked pass in every step, on
prompts padded to 64 tokens, logits everywhere. Precision is that of our step: exact float32, or
bfloat16 by autocast.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

import mgnp_jax as mg
from mgnp_jax.masks.hard_concrete import BETA, GAMMA, ZETA
from mgnp_jax.methods.node_pruning.state import first_trained
from mgnp_jax.models.families.gpt2 import GPT2

if TYPE_CHECKING:
    from torch import Tensor

Values = list[tuple[Any, Any, Any, Any]]
"""Of each layer: heads' outputs, attention's, MLP hidden, MLP output; [B, T, ...]."""


def device() -> str:
    """Where PyTorch runs: on a GPU, where JAX does, too."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def run(
    shape: mg.ModelConfig,
    params: dict[str, Any],
    tokens: Tensor,
    mask: Tensor,
    gates: dict[str, Tensor] | None = None,
    corrupted: Values = (),  # type: ignore[assignment]
) -> tuple[Tensor, Values]:
    """A pass of the model, masked if there are gates.

    Args:
      shape: of GPT-2's kind.
      params: tensors by the names of our own weights' leaves, blocks stacked over layers.
      tokens: [B, T] ids, padded on the right.
      mask: [B, T] True for real tokens.
      gates: in [0, 1], by granularity.
      corrupted: values of a pass of the corrupted prompts, which closed nodes take.

    Returns:
      [B, T, V] logits, values of every node.
    """
    import torch
    from torch.nn import functional

    def normed(x: Tensor, name: str, *at: int) -> Tensor:
        scale, bias = params[f"{name}/scale"], params[f"{name}/bias"]
        for i in at:
            scale, bias = scale[i], bias[i]
        return functional.layer_norm(x, x.shape[-1:], scale, bias, shape.norm_eps)

    def linear(x: Tensor, name: str, i: int) -> Tensor:
        return x @ params[f"blocks/{name}/kernel"][i] + params[f"blocks/{name}/bias"][i]

    def mixed(own: Tensor, site: int, *gate: Tensor) -> Tensor:
        if gates is None:
            return own
        other = corrupted[i][site]
        return other + math.prod(gate) * (own - other)  # type: ignore[arg-type]

    def gate(name: str) -> Tensor:
        return torch.ones(()) if gates is None else gates[name][i]

    embedding = params["embeddings/token/embedding"]
    x = embedding[tokens] + params["embeddings/position/embedding"][: tokens.shape[1]]
    values: Values = []
    for i in range(shape.layers):
        qkv = linear(normed(x, "blocks/attention_norm", i), "attention/qkv", i)
        own_z = _read(qkv, mask, shape)
        z = mixed(own_z, 0, gate("attention_heads")[..., None], gate("attention_neurons"))
        own_attention = linear(z.flatten(2), "attention/o", i)
        x = x + mixed(own_attention, 1, gate("attention_blocks"))
        up = linear(normed(x, "blocks/mlp_norm", i), "mlp/up", i)
        own_hidden = functional.gelu(up, approximate="tanh")
        own_output = linear(mixed(own_hidden, 2, gate("mlp_hidden")), "mlp/down", i)
        x = x + mixed(own_output, 3, gate("mlp_output"), gate("mlp_blocks"))
        values.append((own_z, own_attention, own_hidden, own_output))
    return normed(x, "embeddings/norm") @ embedding.T, values


def _read(qkv: Tensor, mask: Tensor, shape: mg.ModelConfig) -> Tensor:
    """What heads read: [B, T, H, E] from [B, T, 3 H E]."""
    import torch

    length = mask.shape[1]
    ahead = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    q, k, v = qkv.view(*qkv.shape[:2], 3, shape.heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~(ahead & mask[:, None, None]), torch.finfo(scores.dtype).min)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2)


def _drawn(log_alpha: dict[str, Tensor]) -> dict[str, Tensor]:
    """Equation 6: soft gates."""
    import torch

    found = {}
    for name, leaf in log_alpha.items():
        u = torch.rand_like(leaf).clamp(1e-6, 1 - 1e-6)
        sample = ((torch.logit(u) + leaf) / BETA).sigmoid()
        found[name] = (GAMMA + (ZETA - GAMMA) * sample).clamp(0.0, 1.0)
    return found


def _penalty(prices: dict[str, float], log_alpha: dict[str, Tensor]) -> Any:
    """What nodes cost that are expected to be open."""
    shift = BETA * math.log(-GAMMA / ZETA)
    return sum(prices[name] * (leaf - shift).sigmoid().sum() for name, leaf in log_alpha.items())


def torch_published(
    discover: mg.DiscoverConfig, model: mg.Model, padded: mg.Batch
) -> Callable[[], float]:
    """The published step in PyTorch: a function that times one.

    Args:
      discover: loss weights, step size and precision.
      model: of GPT-2's kind.
      padded: [B, 64] prompts.

    Raises:
      MgnpError: if PyTorch is missing, or the model is of another kind.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise mg.MgnpError("--torch needs PyTorch, which is not installed") from None
    if model.config.family is not GPT2:
        raise mg.MgnpError(f"--torch times GPT-2's kind alone; {model.name} is of another")
    where = device()
    torch.backends.cuda.matmul.allow_tf32 = False

    def put(leaf: Any) -> Tensor:
        return torch.tensor(np.asarray(leaf), device=where)

    params = {name: put(leaf) for name, leaf in flatten_dict(model.params, sep="/").items()}
    started = first_trained(discover, model.config, jax.random.key(0)).log_alpha
    log_alpha = {name: put(leaf).requires_grad_() for name, leaf in started.items()}
    optimiser = torch.optim.Adam(log_alpha.values(), lr=discover.learning_rate)
    clean, corrupted, mask = map(put, (padded.clean, padded.corrupted, padded.attention_mask))
    last, rows = mask.sum(1) - 1, torch.arange(len(mask), device=where)
    answers = padded.targets.scores["score"].answers
    tokens, signs = put(answers.tokens).long(), put(answers.signs)
    prices = discover.penalties.of_model(model.config)
    half = discover.execution.precision == "bfloat16"

    def loss() -> Tensor:
        with torch.no_grad():
            base = run(model.config, params, clean, mask)[0][rows, last].float()
            other = run(model.config, params, corrupted, mask)[1]
        logits = run(model.config, params, clean, mask, _drawn(log_alpha), other)[0][rows, last]
        found = logits.float().log_softmax(-1)
        kl = (base.softmax(-1) * (base.log_softmax(-1) - found)).sum(-1).mean()
        score = (logits.float().gather(1, tokens) * signs).sum(-1).mean()
        return kl - score + _penalty(prices, log_alpha)

    def step() -> float:
        begun = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast(where, torch.bfloat16) if half else contextlib.nullcontext():
            total = loss()
        total.backward()
        optimiser.step()
        # Read, so that a device is waited for.
        log_alpha["mlp_blocks"].sum().item()
        return time.perf_counter() - begun

    return step
