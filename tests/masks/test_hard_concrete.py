"""Gates: their distribution, their gradient, and that training and extraction agree."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgnp_jax.masks import hard_concrete as hc
from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES


def test_threshold_is_equation_8() -> None:
    assert hc.THRESHOLD == pytest.approx(2 / 3 * np.log(0.1 / 1.1))
    above, at = hc.THRESHOLD + 1e-3, hc.THRESHOLD - 1e-3
    np.testing.assert_array_equal(hc.is_open(jnp.array([above, at])), [True, False])


@pytest.mark.parametrize("log_alpha", [-3.0, -1.6, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("kind", sorted(hc.GATES))
def test_open_rate_of_samples_matches_the_formula(kind: str, log_alpha: float) -> None:
    n = 200_000
    gates = jax.jit(hc.GATES[kind])(jax.random.key(3), jnp.full((n,), log_alpha, jnp.float32))
    expected = float(hc.open_probability(jnp.float32(log_alpha)))
    error = 4 * np.sqrt(expected * (1 - expected) / n)
    assert abs(float((gates > 0).mean()) - expected) < error
    assert float(gates.min()) >= 0 and float(gates.max()) <= 1


def test_soft_gates_are_equation_6() -> None:
    key, log_alpha = jax.random.key(5), jnp.linspace(-2, 2, 50)
    u = np.asarray(jax.random.uniform(jax.random.clone(key), (50,), jnp.float32, 1e-6, 1 - 1e-6))
    u = u.astype(np.float64)
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + np.asarray(log_alpha)) * 1.5))
    expected = np.minimum(1, np.maximum(0, s * 1.2 - 0.1))
    np.testing.assert_allclose(hc.soft_gates(key, log_alpha), expected, atol=1e-5)
    assert 0 < (expected == 0).sum() < 50 and 0 < (expected == 1).sum() < 50


def test_straight_through_gates_are_binary_with_the_soft_gradient() -> None:
    log_alpha = jnp.linspace(-3, 3, 101)

    def total(draw: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        return draw(jax.random.key(1), x).sum()

    hard = hc.straight_through_gates(jax.random.key(1), log_alpha)
    assert set(np.unique(hard)) == {0.0, 1.0}
    soft_gradient = jax.grad(lambda x: total(hc.soft_gates, x))(log_alpha)
    gradient = jax.grad(lambda x: total(hc.straight_through_gates, x))(log_alpha)
    np.testing.assert_array_equal(gradient, soft_gradient)
    assert float(jnp.abs(gradient).max()) > 0.1


@pytest.mark.parametrize("noise", [1.0, 0.35])
@pytest.mark.parametrize("log_alpha", [-2.0, -1.5, -1.0, 0.0])
def test_second_order_gates_have_the_slope_of_the_expected_loss(
    log_alpha: float, noise: float
) -> None:
    # L(m) = (m - 1)² is flat at m = 1 and costs 1 at m = 0, so E[L] is the chance of being
    # closed at this noise; the trapezoid is exact for a square.
    x = jnp.full((400_000,), log_alpha, jnp.float32)

    def losses(x: jax.Array) -> jax.Array:
        return jnp.square(hc.second_order_gates(jax.random.key(2), x, noise) - 1).sum()

    def closed(x: float) -> float:
        return 1 / (1 + np.exp((x - hc.THRESHOLD) / noise))

    slope = (closed(log_alpha + 1e-4) - closed(log_alpha - 1e-4)) / 2e-4
    assert float(jax.grad(losses)(x).mean()) == pytest.approx(slope, rel=0.04)


@pytest.mark.parametrize("log_alpha", [-2.0, -1.0, 1.0])
def test_first_order_gates_have_the_slope_of_a_linear_loss_at_full_noise(log_alpha: float) -> None:
    # L(m) = 3 m, drawn at half the noise: the slope is three times that of the chance of being
    # open at full noise, in every draw.
    x = jnp.full((1000,), log_alpha, jnp.float32)
    gradient = jax.grad(lambda x: 3 * hc.first_order_gates(jax.random.key(2), x, 0.5).sum())(x)

    def chance(x: float) -> float:
        return 1 / (1 + np.exp(hc.THRESHOLD - x))

    slope = (chance(log_alpha + 1e-4) - chance(log_alpha - 1e-4)) / 2e-4
    np.testing.assert_allclose(gradient, 3 * slope, rtol=1e-4)


def test_first_order_gates_tell_more_of_a_linear_loss_from_as_many_draws() -> None:
    # 64 draws of each of 2,000 gates, open with probability 0.97; the loss has slope 1 in each.
    x = jnp.full((64, 2000), 2.0, jnp.float32)

    def error(draw: Callable[..., jax.Array]) -> float:
        gradient = jax.grad(lambda x: draw(jax.random.key(4), x).sum())(x).mean(0)
        return float(gradient.std() / gradient.mean())

    assert error(hc.first_order_gates) < 1e-5 < 0.3 < error(hc.second_order_gates)


def test_mixed_gates_are_of_the_second_order_where_nodes_are_large() -> None:
    for name in (*GRANULARITIES, EMBEDDING):
        large = name in ("attention_blocks", "mlp_blocks", "attention_heads", "embedding")
        expected = hc.second_order_gates if large else hc.first_order_gates
        assert hc.draw_of("mixed", name) is expected


def test_other_gates_are_the_same_for_all_granularities() -> None:
    for kind, draw in hc.GATES.items():
        assert {hc.draw_of(kind, name) for name in GRANULARITIES} == {draw}


def test_a_gate_that_has_just_closed_can_open_again() -> None:
    just_closed = jnp.float32(hc.THRESHOLD - 0.1)

    def gate(draw: Callable[..., jax.Array]) -> float:
        return float(jax.grad(lambda x: draw(jax.random.key(0), x, 0.01))(just_closed))

    assert gate(hc.straight_through_gates) == 0
    assert gate(hc.second_order_gates) > 0
    assert gate(hc.first_order_gates) > 0


@pytest.mark.parametrize("kind", ["straight_through", "first_order", "second_order"])
def test_binary_gates_without_noise_are_the_extracted_circuit(kind: str) -> None:
    log_alpha = jnp.linspace(-4, 4, 1001)
    gates = hc.GATES[kind](jax.random.key(0), log_alpha, 0.0)
    assert set(np.unique(gates)) == {0.0, 1.0}
    np.testing.assert_array_equal(gates.astype(bool), hc.is_open(log_alpha))


def test_a_key_that_is_used_twice_is_found() -> None:
    key, log_alpha = jax.random.key(0), jnp.zeros((4,), jnp.float32)
    hc.soft_gates(key, log_alpha)
    with pytest.raises(jax.errors.KeyReuseError):
        hc.soft_gates(key, log_alpha)


def test_same_key_same_bits_and_another_key_others() -> None:
    log_alpha = jnp.zeros((64,), jnp.float32)
    draw = jax.jit(hc.soft_gates)
    first, again = draw(jax.random.key(7), log_alpha), draw(jax.random.key(7), log_alpha)
    np.testing.assert_array_equal(first, again)
    assert (first != draw(jax.random.key(8), log_alpha)).any()
