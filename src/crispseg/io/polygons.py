"""Polygons of a label map that share their borders, simplified within a tolerance.

The edges between pixels of different labels are a planar graph. Its lines are rings, or end where three areas meet.
Each line is simplified once, with fixed ends, so that the areas on its two sides stay adjacent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

STRIP = 512  # rows of a map whose edges are found together
SIDE = 1 << 24  # more than the labels of a map; two labels make one number
ROUNDING = 1e-6  # pixels

Ring: TypeAlias = list[list[Any]]  # points `[x, y]` of an outline, without the first one again
Shapes: TypeAlias = NDArray[np.object_]  # of shapely, in pixels; (0, 0) is the top left corner of the first one


class Coverage(NamedTuple):
    """Polygons of all areas that are connected by sides, without gap or overlap."""

    polygons: Shapes  # `(N,)`
    values: NDArray[np.int64]  # `(N,)` label of each
    points: NDArray[np.int64]  # `(2,)` number of points of the lines between areas, before and after simplification
    distance: float  # largest distance in pixels between these lines

    def rings(self) -> Iterator[tuple[int, list[Ring]]]:
        """Yield the label, the outer outline and the outlines of holes of each polygon."""
        for value, polygon in zip(self.values.tolist(), self.polygons, strict=True):
            rings = [shapely.get_coordinates(ring)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
            yield value, [(ring if (ring % 1).any() else ring.astype(np.int64)).tolist() for ring in rings]

    def on_map(self, transform: Any) -> Shapes:
        """Return the polygons in the coordinates of a map."""
        a, b, c, d, e, f = transform[:6]
        return np.asarray(shapely.transform(self.polygons, lambda points: points @ [(a, d), (b, e)] + (c, f)))


def coverage(labels: NDArray[Any], tolerance: float, square: bool = False) -> Coverage:
    """Return the polygons of a map of labels `(H, W)`, at most `tolerance` pixels from the edges of its pixels.

    With `square`, lines get right angles where the tolerance allows it. A tolerance of 0 keeps the edges.
    """
    tolerance = min(tolerance, *labels.shape)
    exact, sides = _exact_lines(labels)
    limits = np.full(len(exact), (1 + square) * float(tolerance))  # lines that meet lose their right angles first
    plain = shapely.simplify(exact, tolerance, preserve_topology=False)
    squared = (_squared(*pair, tolerance) for pair in zip(exact, plain, strict=True))
    moved = np.array([*squared]) if square else plain.copy()
    changed = np.arange(len(exact))
    while len(changed):
        lines = shapely.simplify(moved, ROUNDING, preserve_topology=False)  # without points on sides
        changed = _misplaced(lines, changed)
        limits[changed] /= 2
        moved[changed] = plain[changed] = shapely.simplify(exact[changed], limits[changed], preserve_topology=False)
    points, kept, corners = (_points(kind) for kind in (exact, plain, moved))
    distance = _distances(points, np.flatnonzero(np.isin(points, kept)), corners).max()
    polygons = shapely.orient_polygons(shapely.get_parts(shapely.polygonize(lines)))
    polygons = polygons[np.lexsort(shapely.bounds(polygons).T[:2])]  # from top to bottom
    counts = np.array([len(points), len(_points(lines))])
    return Coverage(polygons, _left_labels(polygons, lines, sides), counts, float(distance))


def _points(lines: Any) -> NDArray[np.complex128]:
    """Return the points of lines as complex numbers."""
    points: NDArray[np.complex128] = shapely.get_coordinates(lines) @ (1, 1j)
    return points


def _exact_lines(labels: NDArray[Any]) -> tuple[Shapes, NDArray[np.int64]]:
    """Return the lines between areas, `(L,)`, and the labels on their left and right, `(L, 2)`."""
    height, width = labels.shape
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    spurs = np.stack([corners, corners + np.sign(corners - 0.5)], axis=1)  # lines end at the corners of the image
    edges = [np.pad(spurs, ((0, 0), (0, 0), (0, 1)))]
    for top in range(0, height + 1, STRIP):
        inside = labels[max(top - 1, 0) : top + STRIP].astype(np.int64) + 1  # 0 is outside
        rows = np.pad(inside, ((top == 0, top + STRIP > height), (1, 1)))
        for step in np.eye(2, 3):  # along x and y
            left = rows[1:, 1:] if step[0] else rows[1:, :-1]  # y points down
            right = rows[:-1, 1:] if step[0] else rows[1:, 1:]
            y, x = np.nonzero(left != right)
            begin = np.stack([x, top + y, left[y, x] * SIDE + right[y, x]], axis=1)
            edges.append(np.stack([begin, begin + step], axis=1))
    merged = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(np.concatenate(edges))))
    left, upper, right, lower = shapely.bounds(merged).T
    merged = merged[(left >= 0) & (upper >= 0) & (right <= width) & (lower <= height)]
    points, line = shapely.get_coordinates(merged, include_z=True, return_index=True)
    first = np.searchsorted(line, np.arange(len(merged)))
    sides = np.stack(np.divmod(points[first, 2].astype(np.int64), SIDE), axis=1) - 1
    is_reversed = (points[first + 1] - points[first])[:, :2].sum(1) < 0
    sides[is_reversed] = sides[is_reversed, ::-1]
    return shapely.simplify(shapely.force_2d(merged), 0, preserve_topology=False), sides


def _misplaced(lines: Shapes, changed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of lines that cross themselves, or meet elsewhere than at their ends; one has changed."""
    numbers, others = shapely.STRtree(lines).query(lines[changed], predicate="intersects")
    pairs = np.stack([changed[numbers], others])
    pairs = pairs[:, pairs[0] != pairs[1]]
    pairs = pairs[:, ~shapely.relate_pattern(*lines[pairs], "FF*F*****")]
    ends = shapely.multipoints(np.stack([shapely.get_point(lines[pairs], place) for place in (0, -1)], axis=2))
    pairs = pairs[:, ~shapely.covers(ends, shapely.intersection(*lines[pairs])).all(0)]  # rings may share their ends
    is_sound = shapely.is_simple(lines[changed]) & shapely.is_valid(lines[changed])
    return np.unique(np.concatenate([*pairs, changed[~is_sound]]))


def _left_labels(polygons: Shapes, lines: Shapes, sides: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label on the left of the outline of each polygon, which is inside."""
    points, line = shapely.get_coordinates(lines, return_index=True)
    inside = np.flatnonzero(line[1:] == line[:-1])
    steps = np.stack([points[inside], points[inside + 1]], axis=1) @ (1, 1j)
    both = map(tuple, np.concatenate([steps, steps[:, ::-1]]).tolist())
    labels = dict(zip(both, sides[line[inside]].T.flat, strict=True))
    outlines = shapely.get_exterior_ring(polygons)
    first = np.stack([_points(shapely.get_point(outlines, place)) for place in (0, 1)], axis=1)
    return np.array([labels[begin, end] for begin, end in first.tolist()])


def _distances(points: NDArray[Any], places: NDArray[np.int64], corners: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each point of a line from straight parts between corners, where the places have moved.

    The line is connected, so no point of a straight part is farther from it.
    """
    step = np.searchsorted(places[1:-1], np.arange(len(points)), "right")
    begin, part = corners[step], corners[step + 1] - corners[step]
    share = ((points - begin) * part.conj()).real / np.maximum(np.abs(part) ** 2, ROUNDING)
    return np.asarray(np.abs(points - begin - share.clip(0, 1) * part))


def _squared(exact: Any, line: Any, tolerance: float) -> Any:
    """Return a simplified line whose points have moved so that its sides have its main direction, or that across."""
    edge, corners = _points(exact), _points(line)
    places, steps = np.flatnonzero(np.isin(edge, corners)), np.diff(corners)
    turn = np.exp(0.25j * np.angle((steps**4 / np.maximum(np.abs(steps), ROUNDING) ** 3).sum()))
    edge, points, steps = edge / turn, corners / turn, steps / turn
    fixed = np.array([] if corners[0] == corners[-1] else [0, -1], np.int64)
    upright = np.abs(steps.imag) > np.abs(steps.real)
    lengths = np.abs(np.diff(edge))
    middles = np.add.reduceat(lengths * (edge[1:] + edge[:-1]) / 2, places[:-1])
    lengths = np.add.reduceat(lengths, places[:-1])
    free = np.minimum(np.abs(steps.imag), np.abs(steps.real)) > 2 * tolerance
    while True:
        side = np.cumsum(np.append(False, (np.diff(upright) != 0) | free[1:] | free[:-1]))
        if not len(fixed) and upright[0] == upright[-1] and not free[0] | free[-1]:
            side[side == side[-1]] = 0  # a ring begins within a side
        offset = np.bincount(side, np.where(upright, middles.real, middles.imag)) / np.bincount(side, lengths)
        x, y = (np.where(free | (upright != kind), np.nan, offset[side]) for kind in (True, False))
        x, y = (np.fmax(np.append(part, part[0]), np.append(part[-1], part)) for part in (x, y))
        moved = np.where(np.isnan(x), points.real, x) + 1j * np.where(np.isnan(y), points.imag, y)
        moved[fixed] = points[fixed]
        far = np.abs(moved - points) > tolerance
        fails = np.maximum.reduceat(_distances(edge, places, moved), places[:-1]) > tolerance - ROUNDING
        fails |= far[1:] | far[:-1]
        shifted = free & fails  # by its neighbours
        wrong = ~free & (fails | np.roll(shifted, 1) | np.roll(shifted, -1))
        if not wrong.any():
            moved *= turn
            moved[fixed] = corners[fixed]
            return shapely.linestrings(moved.real, moved.imag)
        free = free | wrong
