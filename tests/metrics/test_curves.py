"""Areas under curves whose areas are known."""

from __future__ import annotations

import math

import pytest

import mgnp_jax as mg
from mgnp_jax.metrics.curves import KEEPS, Areas, areas, faithfulness, mean_over


def test_faithfulness_is_0_with_nothing_1_with_everything_and_may_be_more() -> None:
    assert faithfulness(-2.0, -2.0, 3.0) == 0
    assert faithfulness(3.0, -2.0, 3.0) == 1
    assert faithfulness(5.5, -2.0, 3.0) == 1.5
    # Whatever the sign of what is gained.
    assert faithfulness(0.5, 3.0, -2.0) == 0.5
    assert math.isnan(faithfulness(1.0, 2.0, 2.0))


@pytest.mark.parametrize("grid", [KEEPS, (0.2, 1.0), (0.001, 0.5, 0.6)])
def test_constant_curves_have_their_own_height_on_every_grid(grid: tuple[float, ...]) -> None:
    ones, zeros = [1.0] * len(grid), [0.0] * len(grid)
    assert areas(grid, ones, ones) == pytest.approx(Areas(cmd=0, cpr=1, accuracy=1))
    assert areas(grid, zeros, zeros) == pytest.approx(Areas(cmd=1, cpr=0, accuracy=0))
    # As far above the model as nothing kept is below it, and no better.
    twos = [2.0] * len(grid)
    assert areas(grid, twos, zeros) == pytest.approx(Areas(cmd=1, cpr=2, accuracy=0))


def test_a_line_is_integrated_exactly_by_trapezoids_in_linear_size() -> None:
    # The mean of a line over a range is its value in the middle, however the grid lies.
    assert mean_over(KEEPS, KEEPS) == pytest.approx((KEEPS[0] + KEEPS[-1]) / 2)
    # By hand: 0.25 · (0 + 1)/2 + 0.75 · (1 + 0)/2 over a width of 1.
    assert mean_over((0.0, 0.25, 1.0), (0.0, 1.0, 0.0)) == pytest.approx(0.5)
    assert mean_over((0.5, 0.75, 1.5), (0.0, 1.0, 0.0)) == pytest.approx(0.5)


def test_overshoot_raises_cpr_and_cmd_both() -> None:
    below, above = areas((0.0, 1.0), (0.5, 1.0), (0, 0)), areas((0.0, 1.0), (1.5, 1.0), (0, 0))
    assert (below.cmd, above.cmd) == (0.25, 0.25)
    assert below.cpr < 1 < above.cpr


@pytest.mark.parametrize(
    ("keeps", "values"), [((0.1,), (1.0,)), ((0.5, 0.1), (1.0, 1.0)), ((0.1, 0.5), (1.0,))]
)
def test_what_is_no_curve_is_refused(keeps: tuple[float, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(mg.MgnpError, match="two or more increasing sizes"):
        mean_over(keeps, values)
