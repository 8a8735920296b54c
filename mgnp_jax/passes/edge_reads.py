"""What readers of edges see of what earlier nodes wrote, and the gradient that is led back.

By itself that is a product of gates and what was written. Where a norm follows attention, what a
layer's heads wrote is no sum of parts once it is in the residual stream, so edges from heads act
before the norm, for each reader apart: what a reader sees of a layer's attention is

  norm(what the corrupted run's heads wrote together + Σ over heads of gate · difference),

which is as if attention had written once for every reader, with the heads that this reader sees.
Every edge has then a meaning of its own, all open ones are the model and all closed ones the
corrupted run. An MLP is one writer, its norm a part of it: what it wrote after it is mixed as ever.

Layers that were written by are gone through one by one, so that no more than a few arrays of
readers' residual streams are there at once, as without the norm; in the gradient, too.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgnp_jax.masks.edges import first_writer
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.passes.layer_steps import Layer
from mgnp_jax.passes.mixture import gate_products, led_back, mixture
from mgnp_jax.passes.node_values import CorruptedRun
from mgnp_jax.types import Params


class Norms(NamedTuple):
    """The norms that follow attention, and the corrupted run before and after each.

    Attributes:
      blocks: the layers' weights, see `stacked_layers`.
      projected: [L, K, D] what attention wrote before its norm.
      written: [L, K, D] and after it.
    """

    blocks: Params
    projected: jax.Array
    written: jax.Array

    def at(self, tokens: jax.Array) -> Norms:
        """At some of the tokens.

        Args:
          tokens: [B] int, which of the K.
        """
        return self._replace(projected=self.projected[:, tokens], written=self.written[:, tokens])


def norms_of(blocks: Params, corrupted: CorruptedRun) -> Norms | None:
    """Those of a model; None where none follows attention.

    Args:
      blocks: its layers.
      corrupted: the corrupted run, no constants.
    """
    (values,) = corrupted.values
    if values.attn_projected is None:
        return None
    return Norms(blocks, values.attn_projected, values.attn_out)


def seen(
    model_config: ModelConfig,
    norms: Norms | None,
    gates: jax.Array,
    written: jax.Array,
    layers: int | jax.Array,
) -> jax.Array:
    """What each reader sees of earlier nodes, less what it would see of the corrupted run.

    Args:
      model_config: the model's shape.
      norms: that follow attention.
      gates: [R, W]; closed from layers that are not earlier.
      written: [W, K, D] how what was written differs from the corrupted run, of heads before the
        norm.
      layers: [] int, how many are earlier.

    Returns:
      [R, K, D].
    """
    if norms is None:
        return mixture(gates, written)

    def more(index: jax.Array, x: jax.Array) -> jax.Array:
        own = _OfLayer.at(model_config, norms, gates, written, index)
        mlp = mixture(own.gates[:, -1:], own.written[-1:])
        return x + (own.normed(own.sum()) - own.corrupted[None]) + mlp

    return jax.lax.fori_loop(0, layers, more, mixture(gates[:, :1], written[:1]))


def seen_back(
    model_config: ModelConfig,
    norms: Norms | None,
    gates: jax.Array,
    written: jax.Array,
    layers: int | jax.Array,
    back: jax.Array,
    down: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradient of `seen` in what was written and in the gates.

    Args:
      model_config: the model's shape.
      norms: that follow attention.
      gates: [R, W].
      written: [W, K, D].
      layers: [] int.
      back: [R, K, D] gradient at the readers.
      down: [W, K, D] at what was written, of later readers.

    Returns:
      [W, K, D] with what comes back from these readers; [R, W], which means nothing for writers
      that are not earlier.
    """
    if norms is None:
        products = gate_products(back, written)
        return led_back(down, gates, back), products

    def more(index: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own = _OfLayer.at(model_config, norms, gates, written, index)
        _, pull = jax.vjp(own.normed, own.sum())
        return own.led_back(*found, (*pull(back), back))

    first = led_back(down[:1], gates[:, :1], back), gate_products(back, written[:1])
    down = down.at[:1].set(first[0])
    products = jnp.zeros_like(gates).at[:, :1].set(first[1])
    return jax.lax.fori_loop(0, layers, more, (down, products))


def seen_by_logits(
    model_config: ModelConfig,
    norms: Norms | None,
    gates: jax.Array,
    written: jax.Array,
    answers: jax.Array,
) -> jax.Array:
    """`seen` by the logits alone, which read after all layers.

    Args:
      model_config: the model's shape.
      norms: that follow attention.
      gates: [W].
      written: [W, K, D].
      answers: [B] int, the tokens that are read.

    Returns:
      [B, D].
    """
    at = written[:, answers]
    if norms is None:
        return jnp.einsum("w,wbd->bd", gates, at)
    return seen(model_config, norms.at(answers), gates[None], at, model_config.layers)[0]


def seen_by_logits_back(
    model_config: ModelConfig,
    norms: Norms | None,
    gates: jax.Array,
    written: jax.Array,
    answers: jax.Array,
    back: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradient of `seen_by_logits` in what was written and in the gates.

    Args:
      model_config: the model's shape.
      norms: that follow attention.
      gates: [W].
      written: [W, K, D].
      answers: [B] int.
      back: [B, D] gradient at what is read.

    Returns:
      [W, K, D] and [W].
    """
    at = written[:, answers]
    if norms is None:
        into = gates[:, None, None] * back[None]
        products = jnp.einsum("bd,wbd->w", back, at)
    else:
        into, (products,) = seen_back(
            *(model_config, norms.at(answers), gates[None], at, model_config.layers),
            *(back[None], jnp.zeros_like(at)),
        )
    return jnp.zeros_like(written).at[:, answers].set(into), products


class _OfLayer(NamedTuple):
    """What readers see of one layer: heads through the norm, the MLP (last) as is."""

    layer: Layer
    first: jax.Array
    gates: jax.Array
    written: jax.Array
    projected: jax.Array
    corrupted: jax.Array

    @classmethod
    def at(
        cls, c: ModelConfig, norms: Norms, gates: jax.Array, written: jax.Array, index: jax.Array
    ) -> _OfLayer:
        first = first_writer(c, index)
        blocks, projected, corrupted = jax.tree.map(lambda leaf: leaf[index], norms)
        return cls(
            layer=Layer(c, blocks),
            first=first,
            gates=jax.lax.dynamic_slice_in_dim(gates, first, c.heads + 1, 1),
            written=jax.lax.dynamic_slice_in_dim(written, first, c.heads + 1, 0),
            projected=projected,
            corrupted=corrupted,
        )

    def sum(self) -> jax.Array:
        """[R, K, D] of the heads, as each reader sees them, before the norm."""
        return self.projected[None] + mixture(self.gates[:, :-1], self.written[:-1])

    def normed(self, projected: jax.Array) -> jax.Array:
        """[R, K, D] → [R, K, D]."""
        return self.layer.step("attn_write", projected)

    def led_back(
        self, down: jax.Array, products: jax.Array, back: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Adds what comes back [R, K, D] before the norm to the heads, and after it to the MLP."""
        rows = jax.lax.dynamic_slice_in_dim(down, self.first, len(self.written), 0)
        of = (slice(None, -1), slice(-1, None))
        rows = [led_back(rows[s], self.gates[:, s], each) for s, each in zip(of, back)]
        found = [gate_products(each, self.written[s]) for s, each in zip(of, back)]
        down = jax.lax.dynamic_update_slice_in_dim(down, jnp.concatenate(rows), self.first, 0)
        own = jnp.concatenate(found, axis=1)
        return down, jax.lax.dynamic_update_slice_in_dim(products, own, self.first, 1)
