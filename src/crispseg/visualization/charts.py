"""The confusion matrix as a picture, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError

DPI = 100

HIT, MISS, ABSENT = "#2166ac", "#b2182b", "#e1e4e8"
NUMBERED = 30
"""Classes up to which cells of a confusion matrix have room for numbers."""
LONGEST = 24
"""Letters of a name."""

_CELLS = ((12, 46), (30, 34), (60, 22), (255, 14))
"""Up to so many classes, a cell is so many pixels."""


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """A picture of a confusion matrix in percent of its rows: what the pixels of each class were predicted as.

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
    cell = next(size for most, size in _CELLS if classes <= most)
    side = classes * cell
    figure = Figure((side / DPI, side / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), facecolor=ABSENT)
    totals = confusion.sum(1, keepdims=True)
    percent = np.where(totals > 0, 100 * confusion / np.maximum(totals, 1), np.nan)
    diagonal = np.eye(classes, dtype=bool)
    for line, (name, color, hidden) in enumerate((("right", HIT, ~diagonal), ("wrong", MISS, diagonal))):
        colors = LinearSegmentedColormap.from_list(name, ["white", color])
        masked = np.ma.masked_invalid(np.where(hidden, np.nan, percent))
        image = axes.imshow(masked, colors, norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
        scale = axes.inset_axes((0, -(30 + 70 * line) / side, 200 / side, 12 / side))
        figure.colorbar(image, scale, orientation="horizontal", ticks=[0, 1, 10, 50, 100])
        scale.set_xlabel(f"{name}, % of the row")
    size = min(cell - 2, 16) * 72 / DPI
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axes.xaxis.tick_top()
    axes.set_xticks(range(classes), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), labels, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class")
    for row, column in np.argwhere(confusion) if classes <= NUMBERED else ():
        text = cell_text(percent[row, column], 1 if cell >= 40 else 0)
        color = "white" if percent[row, column] > 35 else "black"
        axes.text(column, row, text, color=color, fontsize=0.26 * cell, ha="center", va="center")
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return np.array(Image.open(file).convert("RGB"))


def cell_text(share: float, decimals: int) -> str:
    """A share in percent as it is written into its cell: `<0.1` or `<1` if it would round to 0."""
    text = f"{share:.{decimals if share < 99.95 else 0}f}"
    return {"0": "<1", "0.0": "<0.1"}.get(text, text)
