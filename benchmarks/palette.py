"""How the default colours of classes were found, and how far apart they are.

    python benchmarks/palette.py

Each colour is the one of a grid that is farthest, in CIELAB, from all colours before it and from black, white and the
grey of a background, as seen by the one of four kinds of eyes to whom they are most alike. The four are normal vision
and full protanopia, deuteranopia and tritanopia (Machado, Oliveira and Fernandes, IEEE TVCG 2009). The first two are
Okabe and Ito's sky blue and orange, to the nearest of the grid. Prints the table of `crispseg/labels.py` and the least
distances among the first colours, in ΔE (CIE 1976).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.labels import BACKGROUND, Color, default_palette

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""What a kind of eye makes of linear RGB."""

LIGHTNESS = (38, 90)
"""CIELAB's L of the colours: to be seen on black and on white."""


def seen(colors: Sequence[Color] | NDArray[np.int64]) -> NDArray[np.float32]:
    """CIELAB of sRGB colours `(N, 3)` to each kind of eye, `(4, N, 3)`."""
    levels = np.asarray(colors) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    simulated = [(linear @ matrix.T).clip(0, 1).astype(np.float32)[None] for matrix in VISIONS.values()]
    return np.stack([np.asarray(cv2.cvtColor(each, cv2.COLOR_LRGB2Lab))[0] for each in simulated])


def distances(first: Sequence[Color], second: Sequence[Color]) -> NDArray[np.float32]:
    """ΔE of each of the first colours to each of the second to each kind of eye, `(4, N, M)`."""
    apart: NDArray[np.float32] = np.linalg.norm(seen(first)[:, :, None] - seen(second)[:, None], axis=-1)
    return apart


def closest(colors: Sequence[Color]) -> NDArray[np.float32]:
    """The least ΔE of two of these colours to each kind of eye, `(4,)`."""
    least: NDArray[np.float32] = (distances(colors, colors) + 1e9 * np.eye(len(colors), dtype=np.float32)).min((1, 2))
    return least


def found(count: int) -> list[Color]:
    """The colours."""
    levels = range(0, 256, 17)
    grid = [(red, green, blue) for red in levels for green in levels for blue in levels]
    lightness = seen(grid)[0, :, 0]
    grid = [one for one, light in zip(grid, lightness, strict=True) if LIGHTNESS[0] <= light <= LIGHTNESS[1]]
    colors: list[Color] = [(85, 187, 238), (238, 153, 0)]
    nearest = distances(grid, [(0, 0, 0), (255, 255, 255), BACKGROUND, *colors]).min((0, 2))
    while len(colors) < count:
        colors.append(grid[int(nearest.argmax())])
        nearest = np.minimum(nearest, distances(grid, colors[-1:]).min((0, 2)))
    return colors


if __name__ == "__main__":
    print(textwrap.fill(" ".join("".join(f"{level // 17:x}" for level in color) for color in found(255)), 116))
    print("classes", *VISIONS)
    for many in (2, 5, 8, 12, 20, 30, 60, 255):
        print(many, *(f"{least:.1f}" for least in closest([*default_palette(many)])))
