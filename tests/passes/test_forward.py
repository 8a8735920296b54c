"""Invariants of the forward passes, for every kind of block."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgnp_jax as mg
from mgnp_jax.passes import node_forward as passes
from mgnp_jax.passes.cached_runs import masked_logits, plain_runs
from mgnp_jax.passes.embeddings import embed, unembed
from mgnp_jax.passes.layer_steps import Layer, stacked_layers
from mgnp_jax.passes.node_values import blend, site_gates
from mgnp_jax.passes.packing import pack, whole_grid
from mgnp_jax.passes.precision import as_numbers, exact, in_precision
from tests import tiny


def real(mask: np.ndarray, values: jax.Array) -> np.ndarray:
    return np.asarray(values)[np.asarray(mask)]


def random_masks(config: mg.ModelConfig, seed: int = 0) -> mg.Masks:
    masks = mg.full_masks(config, embedding=True)
    keys = jax.random.split(jax.random.key(seed), len(masks))
    return {k: jax.random.uniform(key, m.shape) for key, (k, m) in zip(keys, masks.items())}


def test_masks_of_one_are_the_base_model(any_block: mg.Model) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    masks = mg.full_masks(c, 1.0)
    out = mg.two_stream_forward(c, p, masks, b.clean, b.corrupted, b.attention_mask)
    base = mg.forward(c, p, b.clean, b.attention_mask)
    chex.assert_shape(out, (*b.clean.shape, c.vocab_size))
    largest = np.abs(real(b.attention_mask, base)).max()
    assert largest > 0.5
    atol = 1e-5 * max(1, largest)
    np.testing.assert_allclose(real(b.attention_mask, out), real(b.attention_mask, base), atol=atol)


def test_masks_of_zero_are_the_corrupted_run(any_block: mg.Model) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    run = functools.partial(
        mg.two_stream_forward,
        c,
        p,
        clean=b.clean,
        corrupted=b.corrupted,
        attention_mask=b.attention_mask,
    )
    out = run(mg.full_masks(c, 0.0, embedding=True))
    corrupted = mg.forward(c, p, b.corrupted, b.attention_mask)
    tiny.assert_near(real(b.attention_mask, out), real(b.attention_mask, corrupted))
    # Without its gate the clean embedding still reaches the output.
    other = run(mg.full_masks(c, 0.0))
    assert np.abs(real(b.attention_mask, other - corrupted)).max() > 1e-2


def test_corrupted_stream_is_the_plain_run_of_the_corrupted_prompts(
    any_block: mg.Model,
) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    layout = pack(b.attention_mask.sum(1), np.zeros(len(b), int))
    streams = b.streams[:, b.attention_mask]
    everything = np.arange(streams.shape[1])
    whole = (c, p, streams, layout, everything, everything[None, :3])
    logits, corrupted, _ = passes.plain_passes(*whole)
    alone = passes.capture(c, p, streams[1], layout)
    tiny.assert_near(corrupted.embedding, alone.embedding, rtol=1e-6)
    # Of some families numbers are of the order of a hundred.
    tiny.assert_near(corrupted.values, (alone.values,), rtol=1e-5)
    prefix = (alone.keys[:, None, :3], alone.attended[:, None, :3])
    tiny.assert_near(corrupted.prefix, (prefix,), rtol=1e-6)
    last = b.attention_mask.sum(-1) - 1
    full = mg.forward(c, p, b.clean, b.attention_mask)
    tiny.assert_near(logits, full[np.arange(len(b)), last])


@exact
def loop_masked(
    config: mg.ModelConfig, params: mg.Params, masks: mg.Masks, b: mg.Batch
) -> jax.Array:
    """The oracle: a Python loop over layers, both streams in lockstep, gates one by one."""
    layout = whole_grid(jnp.asarray(b.attention_mask))
    x, y = (embed(config, params, t.ravel(), layout.positions) for t in b.streams)
    x = masks["embedding"] * x + (1 - masks["embedding"]) * y

    def mix(gate: jax.Array, a: jax.Array, other: jax.Array) -> jax.Array:
        gate = jnp.broadcast_to(gate, a.shape)
        return gate * a + (1 - gate) * other

    layers = stacked_layers(config, params)
    for i in range(config.layers):
        layer = Layer(config, jax.tree.map(lambda leaf, i=i: leaf[i], layers))
        call = layer.step
        m = {k: v[i] for k, v in masks.items() if k != "embedding"}
        (qx, kx, vx), (qy, ky, vy) = (layer.qkv(layout, s) for s in (x, y))
        zx, zy = layer.attend(layout, qx, kx, vx), layer.attend(layout, qy, ky, vy)
        zx = mix(m["attention_heads"][None, :, None], zx, zy)
        zx = mix(m["attention_neurons"][None], zx, zy)
        ox, oy = (call("attn_write", call("attn_out", z)) for z in (zx, zy))
        before = (x, y)
        x, y = x + mix(m["attention_blocks"], ox, oy), y + oy
        read = before if config.parallel else (x, y)
        hx, hy = (call("mlp_hidden", s) for s in read)
        hx = mix(m["mlp_hidden"][None], hx, hy)
        ox, oy = (call("mlp_write", call("mlp_out", h)) for h in (hx, hy))
        # Output gate first, block gate after it. The two mixes in a row act as one gate
        # on the head's product and here alike.
        ox = mix(m["mlp_blocks"], mix(m["mlp_output"][None], ox, oy), oy)
        x, y = x + ox, y + oy
    return unembed(config, params, x.reshape(*b.clean.shape, -1))


def test_scan_equals_a_loop_that_gates_one_granularity_after_the_other(
    any_block: mg.Model,
) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    masks = random_masks(c)
    out = mg.two_stream_forward(c, p, masks, b.clean, b.corrupted, b.attention_mask)
    expected = loop_masked(c, p, masks, b)
    tiny.assert_near(real(b.attention_mask, out), real(b.attention_mask, expected))


@pytest.mark.parametrize(
    ("closed", "site"),
    [
        ("attention_blocks", "attention"),
        ("attention_neurons", "attention"),
        ("mlp_hidden", "mlp"),
        ("mlp_output", "mlp"),
    ],
)
def test_what_binary_gates_close_is_not_run(any_block: mg.Model, closed: str, site: str) -> None:
    c, p = any_block.config, any_block.params
    runs = plain_runs(c, p, tiny.batch(c))
    masks = {name: leaf > 0.3 for name, leaf in random_masks(c).items()}
    masks[closed] = masks[closed].at[1].set(False)
    numbers = {name: leaf.astype(jnp.float32) for name, leaf in masks.items()}
    expected = masked_logits(c, p, numbers, runs)
    tiny.assert_near(masked_logits(c, p, masks, runs), expected)
    # Weights of what is not run may be anything at all.
    ruined = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), p["blocks"][site])
    without = {**p, "blocks": {**p["blocks"], site: ruined}}
    tiny.assert_near(masked_logits(c, without, masks, runs), expected)
    assert np.isnan(masked_logits(c, without, numbers, runs)).all()


def test_padding_changes_nothing_at_real_positions(any_block: mg.Model) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    padded = mg.forward(c, p, b.clean, b.attention_mask)
    for row in range(len(b)):
        length = int(b.attention_mask[row].sum())
        alone = mg.forward(c, p, b.clean[row : row + 1, :length])
        tiny.assert_near(padded[row, :length], alone[0])


def test_rows_do_not_see_each_other(any_block: mg.Model) -> None:
    c, p, b = any_block.config, any_block.params, tiny.batch(any_block.config)
    masks = random_masks(c)
    together = mg.two_stream_forward(c, p, masks, b.clean, b.corrupted, b.attention_mask)
    order = np.arange(len(b))[::-1]
    turned = b.take(order)
    reversed_ = mg.two_stream_forward(
        c, p, masks, turned.clean, turned.corrupted, turned.attention_mask
    )
    tiny.assert_near(together, reversed_[order])


def test_prompts_beyond_the_context_are_refused(any_block: mg.Model) -> None:
    tokens = np.zeros((1, any_block.config.context + 1), np.int32)
    with pytest.raises(ValueError, match="17 tokens are longer.*context of 16"):
        mg.forward(any_block.config, any_block.params, tokens)


def test_blend_takes_bool_and_float_gates_and_keeps_the_dtype() -> None:
    clean = jnp.ones((2, 3), jnp.bfloat16)
    gate = jnp.array([[True, False, True]])
    out = blend(gate, clean, jnp.zeros_like(clean))
    chex.assert_type(out, jnp.bfloat16)
    np.testing.assert_array_equal(out[1], [1, 0, 1])


def test_gates_of_two_granularities_multiply() -> None:
    masks = random_masks(tiny.GPT2)
    gates = site_gates(masks)
    chex.assert_shape(gates.attn_z, (3, 4, 3))
    chex.assert_shape(gates.mlp_out, (3, 12))
    product = masks["attention_heads"][1, 2] * masks["attention_neurons"][1, 2, 0]
    assert gates.attn_z[1, 2, 0] == product


def test_stored_weights_are_the_same_model(
    any_block: mg.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = any_block.config
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), any_block.params)
    # Accelerators keep no bits, but can run them.
    with monkeypatch.context() as patched:
        patched.setattr(jax, "default_backend", lambda: "cpu")
        acting, bits = in_precision(c, any_block.params, "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(bits)} == {np.dtype(np.uint16)}
    chex.assert_trees_all_equal(as_numbers(acting, bits), half)
    assert in_precision(c, any_block.params, "float32") == (c, any_block.params)
    tokens = tiny.batch(c).clean
    # Weights of 16 bits only save memory, unless they are said to be computed with.
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    fine, narrow = mg.forward(c, wide, tokens), mg.forward(acting, bits, tokens)
    tiny.assert_near(mg.forward(c, half, tokens), fine)
    assert narrow.dtype == jnp.bfloat16
    assert 1e-4 < abs(narrow.astype(jnp.float32) - fine).max() < 0.1 * abs(fine).max()
