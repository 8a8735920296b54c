"""Curves from node to node, upwards, around the boxes of the rows that lie between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
Interval = tuple[float, float]

MARGIN, LANE = 0.07, 0.06
"""Between a curve and a box that it passes, and between curves that pass it side by side."""

WIDEST_BUNDLE = 2.5
"""Of curves side by side, which come closer where there are more."""


def routed(
    edges: Sequence[tuple[Point, Point]],
    rows: Sequence[tuple[float, Sequence[Interval]]],
    reach: float,
) -> list[np.ndarray]:
    """Curves that no box hides.

    Args:
      edges: where each begins and where, above, it stops.
      rows: height of each row, ascending, and left and right of its boxes.
      reach: of a box, from the height of its row.

    Returns:
      [1 + 3n, 2] each: a point, then two control points and a point for each part of the curve.
    """
    points = [[start] for start, _ in edges]
    for height, boxes in rows:
        free = _gaps(boxes)
        lanes: dict[Interval, list[tuple[float, float, int]]] = defaultdict(list)
        for index, (start, stop) in enumerate(edges):
            if start[1] < height < stop[1]:
                x, y = points[index][-1]
                straight = round(x + (stop[0] - x) * (height - y) / (stop[1] - y), 6)
                cost = {g: _beyond(g, straight) + _squeezed(g, len(lanes[g])) for g in free}
                # Where both are as good, every other curve goes left.
                gap = min(free, key=lambda g: (round(cost[g], 6), g[0] if index % 2 else -g[0]))
                # Side by side, those that go further up keep outside.
                outside = stop[1] if straight < gap[0] else -stop[1]
                lanes[gap].append((straight, outside, index))
        for gap, some in lanes.items():
            some.sort()
            for (*_, index), x in zip(some, _side_by_side([s[0] for s in some], gap)):
                (x0, y0), (x1, y1) = points[index][-1], edges[index][1]
                slants = (x - x0) / (height - y0), (x1 - x) / (y1 - height)
                aside = max(map(abs, slants)) * reach
                clear = gap[0] <= x - aside and x + aside <= gap[1]
                # Upright beside a box that a slanted curve would touch.
                points[index] += [(x, height + by) for by in ((0.0,) if clear else (-reach, reach))]
    return [_curve(np.array([*some, stop])) for some, (_, stop) in zip(points, edges)]


def _gaps(boxes: Sequence[Interval]) -> list[Interval]:
    """What is free between boxes, and left and right of all."""
    lefts = sorted(left - MARGIN for left, _ in boxes)
    rights = sorted(right + MARGIN for _, right in boxes)
    found = zip([-np.inf, *rights], [*lefts, np.inf])
    return [(left, right) for left, right in found if left <= right]


def _beyond(gap: Interval, x: float) -> float:
    return max(gap[0] - x, x - gap[1], 0.0)


def _squeezed(gap: Interval, others: int) -> float:
    """By how much a gap is too narrow for one more."""
    return max(LANE * (others + 1) - (gap[1] - gap[0]), 0.0)


def _side_by_side(wanted: Sequence[float], gap: Interval) -> list[float]:
    """Places within a gap, in the order of those that are wanted, a lane apart if there is room."""
    left, right = gap
    lane = min(LANE, min(right - left, WIDEST_BUNDLE) / max(len(wanted) - 1, 1))
    found = [min(max(x, left), right) for x in wanted]
    for i in range(1, len(found)):
        found[i] = max(found[i], found[i - 1] + lane)
    if right < np.inf:
        for i in range(len(found)):
            found[i] = min(found[i], right - lane * (len(found) - 1 - i))
    return found


def _curve(points: np.ndarray) -> np.ndarray:
    """A smooth curve through points of ascending height that never swings beyond them.

    Upright where it begins and stops, and where it turns back; Fritsch and Carlson's slopes.
    """
    step = np.diff(points[:, 1])
    slope = np.diff(points[:, 0]) / step
    slopes = np.zeros(len(points))
    before, after = slope[:-1], slope[1:]
    same = before * after > 0
    both = np.where(same, before + after, 1.0)
    slopes[1:-1] = np.where(same, 2 * before * after / both, 0.0)
    third = np.stack([slopes, np.ones(len(points))], axis=1)
    leaving = points[:-1] + third[:-1] * step[:, None] / 3
    coming = points[1:] - third[1:] * step[:, None] / 3
    parts = np.stack([leaving, coming, points[1:]], axis=1)
    return np.concatenate([points[:1], parts.reshape(-1, 2)])
