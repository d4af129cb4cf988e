"""The confusion matrix as a picture, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError

DPI = 100
HIT, MISS, ABSENT = (33, 102, 172), (178, 24, 43), (225, 228, 232)
NUMBERED = 30
"""Most classes for which cells have numbers."""
LONGEST = 24
"""Letters of a name."""

_CELLS = ((12, 46), (30, 34), (60, 22), (255, 14))
"""Most classes, and pixels of a cell."""


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix in percent of its rows: the classes predicted for the pixels of each class.

    Right pixels are blue, wrong ones red; colours grow with the root of the share, so that 1 % can be seen. Up to 30
    classes, cells have their numbers. The row of a class that is not in the truth is grey.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        names: names of the `C` classes.

    Returns:
        `(H, W, 3)` RGB, about 300 pixels wide for 2 classes and 2300 for 150.

    Raises:
        CrispsegError: the matrix is not square, or there is not one name a class.
    """
    classes = len(names)
    if confusion.shape != (classes, classes):
        raise CrispsegError(f"a confusion matrix of shape {confusion.shape} for {classes} names; give one name a class")
    totals = confusion.sum(1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    colors = np.where(np.eye(classes, dtype=bool)[..., None], HIT, MISS)
    pixels = np.rint(255 + np.sqrt(shares)[..., None] * (colors - 255)).astype(np.uint8)
    pixels[totals[:, 0] == 0] = ABSENT
    cell = next(size for most, size in _CELLS if classes <= most)
    figure = Figure((classes * cell / DPI, classes * cell / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, interpolation="nearest")
    size = min(cell - 2, 16) * 72 / DPI
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axes.xaxis.tick_top()
    axes.set_xticks(range(classes), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), labels, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class, % of its pixels")
    for row, column in np.argwhere(confusion) if classes <= NUMBERED else ():
        share = 100 * shares[row, column]
        text = f"{share:.{1 if cell >= 40 and share < 99.95 else 0}f}"
        text = {"0": "<1", "0.0": "<0.1"}.get(text, text)
        color = "white" if share > 35 else "black"
        axes.text(column, row, text, color=color, fontsize=0.26 * cell, ha="center", va="center")
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return np.array(Image.open(file).convert("RGB"))
