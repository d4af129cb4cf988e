"""Camera, light and brush of the built-in street scenes.

The canvas has four channels, red, green, blue and class id, and every stroke sets all four at once without
anti-aliasing: image and mask cannot disagree by a pixel.

World coordinates are metres: x to the right, y up from the ground, z along the street, the camera above x = z = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import exp
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = tuple[float, float, float]  # 0..255
Points = NDArray[np.float64]  # (..., 3) world coordinates
Number = TypeVar("Number", float, NDArray[np.float64])

NEAR = 1.5  # metres; what is nearer is pulled to this plane, where walls are already outside the picture


class Kind(IntEnum):
    """The class ids."""

    ROAD = 0
    PAVEMENT = 1
    BUILDING = 2
    FENCE = 3
    SKY = 4
    TREE = 5
    TERRAIN = 6
    CAR = 7
    PEDESTRIAN = 8
    POLE = 9
    SIGN = 10
    MARKING = 11


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along a street with a constant bend."""

    focal: float  # pixels
    centre: float  # column of the vanishing point
    horizon: float  # row of the vanishing point
    eye: float  # metres above the ground
    bend: float  # sideways drift of the street: bend · z² metres at distance z

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Project (..., 3) world points to (..., 2) integer (column, row)."""
        z = np.maximum(points[..., 2], NEAR)
        pixels = np.empty((*z.shape, 2))
        pixels[..., 0] = self.column(points[..., 0], z)
        pixels[..., 1] = self.row(points[..., 1], z)
        return np.rint(pixels, out=pixels).astype(np.int32)

    def column(self, x: Number, z: Number) -> Number:
        return self.centre + self.focal * (x / z + self.bend * z)

    def row(self, y: Number, z: Number) -> Number:
        return self.horizon + self.focal * (self.eye - y) / z


@dataclass(frozen=True)
class Light:
    """Sun, sky light and haze."""

    sun: tuple[float, float, float]  # unit vector towards the sun
    direct: float
    ambient: float
    haze: Rgb
    visibility: float  # metres at which 1/e of the contrast is left

    def on(self, normal: Sequence[float]) -> float:
        """Brightness factor of a face with this outward unit normal."""
        incidence = sum(n * s for n, s in zip(normal, self.sun, strict=True))
        return self.ambient + self.direct * max(0.0, incidence)

    def cast(self, points: Points) -> Points:
        """The shadows of (N, 3) points on the ground."""
        x, y, z = self.sun
        slide: Points = points[:, 1:2] * np.array((x / y, 1.0, z / y))
        return points - slide


class Brush:
    """Paints lit and hazy surfaces on the canvas, an (H, W, 4) uint8 array of RGB and class id."""

    def __init__(self, canvas: NDArray[np.uint8], camera: Camera, light: Light, rng: np.random.Generator) -> None:
        self.canvas, self.camera, self.light, self.rng = canvas, camera, light, rng

    def ink(self, kind: Kind, color: Rgb, distance: float, shade: float = 1.0) -> tuple[float, float, float, float]:
        """The canvas value of a surface at this distance; OpenCV saturates it to 0..255."""
        clear = exp(-max(distance, 0.0) / self.light.visibility)
        own, veil = shade * clear, 1 - clear
        (red, green, blue), haze = color, self.light.haze
        return own * red + veil * haze[0], own * green + veil * haze[1], own * blue + veil * haze[2], float(kind)

    def face(self, corners: Points, kind: Kind, color: Rgb, shade: float = 1.0) -> None:
        """Fill one (N, 3) polygon, or (M, N, 3) polygons that do not overlap, as hazy as the very first corner."""
        pixels = self.camera.pixels(corners)
        polygons = [pixels] if pixels.ndim == 2 else list(pixels)
        cv2.fillPoly(self.canvas, polygons, self.ink(kind, color, corners.item(2), shade))

    def lines(self, ends: Points, kind: Kind, color: Rgb, shade: float = 1.0) -> None:
        """Draw (M, 2, 3) hairlines, M > 0, for texture on a face of the same kind."""
        cv2.polylines(self.canvas, list(self.camera.pixels(ends)), False, self.ink(kind, color, ends.item(2), shade))

    def panes(self, quad: Points, columns: int, rows: int, kind: Kind, color: Rgb, shade: float) -> None:
        """Rows of windows on a (4, 3) quad, some of them brighter; those under 2 pixels wide are left out."""
        pixels = self.camera.pixels(pane_weights(columns, rows) @ quad)  # (panes, 4, 2)
        pixels = pixels[np.abs(pixels[:, 1, 0] - pixels[:, 0, 0]) >= 2]
        bright = self.rng.random(len(pixels)) < 0.3
        for group, gain in ((pixels[~bright], 1.0), (pixels[bright], 1.5)):
            cv2.fillPoly(self.canvas, list(group), self.ink(kind, color, quad.item(2), shade * gain))

    def room(self, points: Points) -> int:
        """How many columns of the picture the hull of (N, 3) points spans; 0 where it lies outside."""
        columns: list[int] = self.camera.pixels(points)[:, 0].tolist()
        return int(max(0, min(max(columns), self.canvas.shape[1]) - max(min(columns), 0)))

    def sees(self, points: Points) -> bool:
        """Whether the hull of (N, 3) points lies, at least in part, between the sides of the picture."""
        columns: list[int] = self.camera.pixels(points)[:, 0].tolist()
        return bool(min(columns) < self.canvas.shape[1] and max(columns) >= 0)

    def visible(self, quads: Points) -> NDArray[np.bool_]:
        """Which of (M, 4, 3) quads turn their front, where the corners run counter-clockwise, to the camera."""
        pixels = self.camera.pixels(quads)
        (ax, ay), (bx, by) = (pixels[:, 2] - pixels[:, 0]).T, (pixels[:, 3] - pixels[:, 1]).T
        front: NDArray[np.bool_] = ax * by < bx * ay  # rows grow downwards
        return front


# A point of a quad is a weighted mean of its corners: bottom left, bottom right, top right, top left.


def weights(s: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corner weights (..., 4) of the points at these fractions of a quad's width and height."""
    return np.stack(np.broadcast_arrays((1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t), axis=-1)


@lru_cache(maxsize=1024)
def part(left: float, right: float, low: float, high: float) -> NDArray[np.float64]:
    """Weights (4, 4) of the part of a quad between these fractions of its width and height."""
    return weights(np.array([left, right, right, left]), np.array([low, low, high, high]))


@lru_cache(maxsize=1024)
def pane_weights(columns: int, rows: int) -> NDArray[np.float64]:
    """Weights (columns · rows, 4, 4) of the windows in a quad."""
    places = [(i, j) for j in range(rows) for i in range(columns)]
    return np.stack(
        [part((i + 0.24) / columns, (i + 0.76) / columns, (j + 0.3) / rows, (j + 0.78) / rows) for i, j in places]
    )


@lru_cache(maxsize=1024)
def rules(count: int, upright: bool) -> NDArray[np.float64]:
    """Weights (count - 1, 2, 4) of the lines that cut a quad into `count` equal strips."""
    cuts, ends = np.arange(1, count)[:, None] / count, np.array([0.0, 1.0])
    return weights(cuts, ends) if upright else weights(ends, cuts)
