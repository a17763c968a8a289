"""Pareto fronts: the points that no other point beats."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is nowhere larger than `b` and smaller somewhere."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def front(points: Sequence[Point]) -> list[bool]:
    """Whether each point, all coordinates to be minimized, is dominated by none; equal points stand together."""
    return [not any(dominates(other, point) for other in points) for point in points]
